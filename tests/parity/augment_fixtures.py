"""Writes tests/fixtures/augment: a crop of one small picture, and what torchvision (by Pillow) makes of it by each operation of
the augmentation. Needs torchvision and Pillow; run from the repository's root."""

from pathlib import Path

from PIL import Image
from torchvision.transforms import InterpolationMode, functional as F

OUT = Path("tests/fixtures/augment")
SIDE = 64


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    picture = Image.open("tests/fixtures/formats/plain.png")
    # top, left, height, width
    view = F.resized_crop(picture, 5, 10, 30, 40, [SIDE, SIDE], InterpolationMode.BICUBIC)
    photo = Image.open("tests/fixtures/photos/animal_explore_farm_animals_cow.jpg").convert("RGB")
    pictures = {
        "enlarged": view,
        "reduced": photo.resize((SIDE, SIDE), Image.BICUBIC),
        "mirrored": F.hflip(view),
        "brightness": F.adjust_brightness(view, 1.3),
        "contrast": F.adjust_contrast(view, 0.7),
        "saturation": F.adjust_saturation(view, 1.2),
        "hue": F.adjust_hue(view, 0.08),
        "grey": F.rgb_to_grayscale(view, 3),
        "blur": F.gaussian_blur(view, [23, 23], [1.5, 1.5]),
        "solarise": F.solarize(view, 128),
    }
    for name, image in pictures.items():
        image.save(OUT / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
