"""HTML templates: style sheets moved into elements, a text made from them, their pictures."""

from mailrace.mail.html.images import local_images, use_inline_images
from mailrace.mail.html.inlining import inline_css
from mailrace.mail.html.totext import html_to_text

__all__ = ["html_to_text", "inline_css", "local_images", "use_inline_images"]
