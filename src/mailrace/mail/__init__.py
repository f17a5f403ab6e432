"""The mail engine: messages, templates, campaigns, providers."""

from mailrace.mail.campaign import Campaign
from mailrace.mail.mime import Attachment, InlineImage
from mailrace.mail.run import Outcome, Report

__all__ = ["Attachment", "Campaign", "InlineImage", "Outcome", "Report"]
