"""Recipients: rows checked in a first pass, read in batches in a second."""

from mailrace.mail.intake.listed import listed_rows
from mailrace.mail.intake.recipients import Recipient, Rejected, read_batches, read_recipients
from mailrace.mail.intake.rejected import RejectedFile, rejected_path
from mailrace.mail.intake.rows import Rows
from mailrace.mail.intake.source import open_source, spool
from mailrace.mail.intake.survey import Survey, survey
from mailrace.mail.intake.table import Table, open_table

__all__ = [
    "Recipient",
    "Rejected",
    "RejectedFile",
    "Rows",
    "Survey",
    "Table",
    "listed_rows",
    "open_source",
    "open_table",
    "read_batches",
    "read_recipients",
    "rejected_path",
    "spool",
    "survey",
]
