"""A campaign: one template, sent to many; and how it is kept in a batch."""

import msgspec

from mailrace.errors import ConflictError, MisuseError
from mailrace.mail.addresses import parse_mailbox
from mailrace.mail.mime import Attachment, CompiledMessage, InlineImage, compile_message

KIND = "campaign"


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """What all messages of a campaign share.

    `subject`, `html`, `text`, `reply_to`, `unsubscribe_url` and the values of `headers` are Jinja2
    templates over the columns of the recipients.

    Attributes:
        name: Names the campaign in its store; the same name continues it.
        sender: `ann@example.com` or `Ann <ann@example.com>`; not a template.
        html: The HTML part; may be left out when there is a text.
        text: The text part; made from the HTML where it is not given.
        headers: Further headers, name and value.
        unsubscribe_url: For List-Unsubscribe; with https also for one click (RFC 8058).
        inline_images: Pictures that the HTML shows as `<img src="cid:…">`.
    """

    name: str
    sender: str
    subject: str
    html: str | None = None
    text: str | None = None
    reply_to: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    unsubscribe_url: str | None = None
    attachments: tuple[Attachment, ...] = ()
    inline_images: tuple[InlineImage, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable():
            raise MisuseError(f"{self.name!r} is no name for a campaign", hint="give a plain word")

    def compile(self, token: str) -> CompiledMessage:
        """Compiles the message; `token` decides the boundaries between its parts.

        Raises:
            MisuseError: A template, header, address or attachment is wrong; says which and why.
        """
        return compile_message(
            sender=parse_mailbox(self.sender),
            subject=self.subject,
            html=self.html,
            text=self.text,
            attachments=self.attachments,
            inline_images=self.inline_images,
            reply_to=self.reply_to,
            headers=self.headers,
            unsubscribe_url=self.unsubscribe_url,
            boundary_seed=token,
        )


class StoredCampaign(msgspec.Struct, frozen=True, kw_only=True):
    """A campaign as its batch keeps it.

    Attributes:
        token: What is random in its Message-IDs; drawn once, so that every attempt, in every
            process, gives a message the same one.
    """

    token: str
    campaign: Campaign

    def check_same(self, campaign: Campaign) -> None:
        """Refuses to go on with something else under the same name.

        Raises:
            ConflictError: Names what differs.
        """
        changed = [
            name
            for name in Campaign.__struct_fields__
            if getattr(campaign, name) != getattr(self.campaign, name)
        ]
        if changed:
            raise ConflictError(
                f"campaign {campaign.name!r} was begun with another {', '.join(changed)}",
                hint="go on with what it was begun with, or give the new one another --campaign",
            )
