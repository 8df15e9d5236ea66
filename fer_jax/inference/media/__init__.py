"""Reads images and videos, and tracks the faces in videos."""

VIDEO_ENDINGS = tuple(".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .wmv .flv .3gp .ts .mts .m2ts".split())
ANIMATED_ENDINGS, ANIMATED_FORMATS = (".gif", ".webp"), ("GIF", "WEBP")
COPY_ENDINGS = (".mp4", ".mkv")  # of annotated copies


class VideoError(ValueError):
    """A video that cannot be read completely; the message names it."""
