"""`before-after.png`: each pair as a whole, and its most detailed part pixel by pixel."""

from typing import Final

from PIL import Image, ImageChops, ImageDraw, ImageFont

from restoration_cli.footage import Pair

COLUMN: Final = 800
MARGIN: Final = 8
CAPTION: Final = 28
DETAIL: Final = (16, 9)
"""Form of the details."""
CELL: Final = 8
"""Details are looked for on a grid of such cells."""
PLACES: Final = 16
"""And at so many places along each side, which is close enough: the boxes overlap by far the most of them."""


def sheet(pairs: list[Pair], *, before: str, after: str) -> Image.Image:
    """Two columns with their captions; two rows for each pair."""
    width, height = pairs[0].after.size
    column = min(COLUMN, max(width, COLUMN // 2))
    whole = (column, round(column * height / width))
    detail = (column, column * DETAIL[1] // DETAIL[0])
    block = CAPTION + whole[1] + MARGIN + detail[1] + MARGIN
    picture = Image.new("RGB", (2 * column + 3 * MARGIN, CAPTION + block * len(pairs) + MARGIN), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=16)
    for index, caption in enumerate((before, after)):
        pen.text((MARGIN + index * (column + MARGIN), 6), _fitting(caption, column, font), fill="black", font=font)
    for number, pair in enumerate(pairs):
        top = CAPTION + number * block
        pen.text((MARGIN, top + 4), f"{pair.time_s:.2f} s", fill="#555", font=font)
        box = detailed(pair.after, detail)
        for index, image in enumerate((pair.before, pair.after)):
            left = MARGIN + index * (column + MARGIN)
            picture.paste(image.resize(whole, Image.Resampling.LANCZOS), (left, top + CAPTION))
            close = image.crop(box).resize(detail, Image.Resampling.NEAREST)
            picture.paste(close, (left, top + CAPTION + whole[1] + MARGIN))
    return picture


def detailed(image: Image.Image, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) whose luma changes most from pixel to pixel.

    It is `size` divided by the smallest whole number with which it is at most half as wide and high as the image, so
    that its pixels are squares when it is enlarged to `size` again.
    """
    zoom = 1
    while size[0] // zoom * 2 > image.width or size[1] // zoom * 2 > image.height:
        zoom += 1
    width, height = max(1, size[0] // zoom), max(1, size[1] // zoom)
    luma = image.convert("L")
    changes = ImageChops.add(
        ImageChops.difference(luma, ImageChops.offset(luma, 1, 0)),
        ImageChops.difference(luma, ImageChops.offset(luma, 0, 1)),
    )
    boxes = [
        (left, top, left + width, top + height)
        for top in _places(image.height - height)
        for left in _places(image.width - width)
    ]
    # One small picture, each pixel of which is the mean of a cell: means of boxes are then cheap.
    small = changes.resize((max(1, image.width // CELL), max(1, image.height // CELL)), Image.Resampling.BOX)

    def busyness(box: tuple[int, int, int, int]) -> float:
        part = small.crop((box[0] // CELL, box[1] // CELL, -(-box[2] // CELL), -(-box[3] // CELL)))
        histogram = part.histogram()
        return sum(level * count for level, count in enumerate(histogram)) / max(1, part.width * part.height)

    return max(boxes, key=busyness)


def _places(room: int) -> range:
    """Where a box may begin along one side: every cell, or at most some twenty places."""
    return range(0, max(0, room) + 1, max(CELL, room // PLACES // CELL * CELL))


def _fitting(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The end of a text is what tells addresses apart."""
    while len(text) > 4 and font.getlength(text) > width:
        text = "…" + text[2:]
    return text
