"""Mailrace's own SMTP client: PIPELINING, CHUNKING, kept connections, no guessing about loss."""

from mailrace.mail.providers.smtp.mailer import SmtpMailer
from mailrace.mail.providers.smtp.settings import Auth, SmtpSettings, Timeouts, Tls
from mailrace.mail.providers.smtp.url import parse_smtp_url

__all__ = ["Auth", "SmtpMailer", "SmtpSettings", "Timeouts", "Tls", "parse_smtp_url"]
