"""Oracle: masks drawn by hand and saved in every form that tools write; their pixels must come back."""

import struct
import unicodedata
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

import seglens
from seglens.data.labels import read_label
from seglens.data.layout import DataSettings
from seglens.data.opening import open_data
from seglens.data.palette import read_palette
from seglens.data.tables import read_text
from seglens.errors import DataError, MaskValueError, SettingError
from seglens.weak.labels import read_label_table

BOX = np.zeros((24, 32), np.uint8)
BOX[5:15, 8:20] = 1


def mask_of(split, position: int) -> np.ndarray:
    mask = split[position].mask
    assert mask is not None
    return mask.numpy()


def put(folder, name, write, mask=BOX):
    (folder / "images").mkdir(exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    Image.fromarray(np.zeros((*BOX.shape, 3), np.uint8)).save(folder / "images" / f"{name}.png")
    write(mask, folder / "masks" / name)


def grey(value, dtype=np.uint8):
    return lambda mask, stem: tifffile.imwrite(stem.with_suffix(".tif"), mask.astype(dtype) * dtype(value))


def picture(values, mode, suffix=".png", **options):
    return lambda mask, stem: Image.fromarray(values(mask), mode).save(stem.with_suffix(suffix), **options)


def palette(colours, index, suffix=".png"):
    def write(mask, stem):
        made = Image.fromarray(index(mask).astype(np.uint8), "P")
        made.putpalette([part for colour in colours for part in colour])
        made.save(stem.with_suffix(suffix))

    return write


def npy(dtype):
    return lambda mask, stem: np.save(stem.with_suffix(".npy"), mask.astype(dtype))


def white_is_zero(dtype):
    top = np.iinfo(dtype).max
    return lambda mask, stem: tifffile.imwrite(
        stem.with_suffix(".tif"), (top - mask.astype(dtype) * top).astype(dtype), photometric="miniswhite"
    )


def jpeg(mask, stem):
    Image.fromarray(mask * 255).save(stem.with_suffix(".jpg"), quality=75)


def hidden(mask, stem):
    white = np.repeat(mask[..., None] * 255, 4, axis=2)
    Image.fromarray(white, "RGBA").save(stem.with_suffix(".png"))


FOREGROUND = {
    "128": grey(128),
    "254": grey(254),
    "65535": grey(65535, np.uint16),
    "float": grey(1, np.float32),
    "white is 0, 8 bits": white_is_zero(np.uint8),
    "white is 0, 16 bits": white_is_zero(np.uint16),
    "gif": lambda mask, stem: Image.fromarray(mask * 255).save(stem.with_suffix(".gif")),
    "VOC": palette([(0, 0, 0), (128, 0, 0)], lambda mask: mask),
    "VOC gif": palette([(0, 0, 0), (128, 0, 0)], lambda mask: mask, ".gif"),
    "white at 0": palette([(255, 255, 255), (0, 0, 0)], lambda mask: 1 - mask),
    "greys": palette([(0, 0, 0), (255, 255, 255)], lambda mask: mask),
    "red on white": palette([(255, 255, 255), (255, 0, 0)], lambda mask: mask),
    "bool npy": npy(bool),
    "int npy": npy(np.int32),
    "jpeg": jpeg,
    "transparent black": hidden,
}


@pytest.mark.parametrize("form", FOREGROUND)
def test_one_value_besides_0_is_the_foreground_in_any_form(tmp_path, form):
    put(tmp_path, "a", FOREGROUND[form])
    put(tmp_path, "b", FOREGROUND[form], 1 - BOX)
    split = open_data(DataSettings(path=tmp_path)).split("all")
    for sample, expected in zip((split[0], split[1]), (BOX, 1 - BOX), strict=True):
        assert sample.mask is not None
        assert np.array_equal(sample.mask.numpy(), expected)
        assert sample.valid.all()


def by_alpha(mask, stem):
    Image.fromarray(np.dstack([mask * 0 + 255] * 3 + [mask * 255]), "RGBA").save(stem.with_suffix(".png"))


def by_alpha_in_black(mask, stem):
    Image.fromarray(np.dstack([mask * 0] * 3 + [mask * 255]), "RGBA").save(stem.with_suffix(".png"))


REFUSED = {
    "alpha": (by_alpha, "partly see-through"),
    "alpha in black": (by_alpha_in_black, "partly see-through"),
    "red": (
        picture(lambda mask: np.dstack([mask * 255, mask * 0, mask * 0]), "RGB"),
        "colour picture .*--palette",
    ),
    "black at 1": (palette([(255, 0, 0), (0, 0, 0)], lambda mask: mask), "black is index 1"),
    "complex": (grey(1, np.complex64), "complex numbers"),
    "negative": (
        lambda mask, stem: np.save(stem.with_suffix(".npy"), -mask.astype(int)),
        "holds the value -1",
    ),
    "NaN": (grey(np.nan, np.float32), "not finite"),
    "half": (grey(0.5, np.float32), "holds fractions"),
    "objects": (
        lambda mask, stem: np.save(stem.with_suffix(".npy"), mask.astype(object)),
        "can't|array of object",
    ),
    "grey jpeg": (
        lambda mask, stem: Image.fromarray(mask * 120).save(stem.with_suffix(".jpg")),
        "lossy format .* neither black nor white",
    ),
}


@pytest.mark.parametrize("form", REFUSED)
@pytest.mark.filterwarnings("error")
def test_what_means_nothing_is_refused_by_name(tmp_path, form):
    write, match = REFUSED[form]
    put(tmp_path, "a", write)
    split = open_data(DataSettings(path=tmp_path)).split("all")
    with pytest.raises(DataError, match=rf"a\.\w+ .*({match})"):
        split[0]
    assert seglens.check_data(DataSettings(path=tmp_path)).num_errors == 1


def test_several_values_are_asked_about_even_where_each_file_has_one(tmp_path):
    for name, value in {"a": 1, "b": 2}.items():
        put(tmp_path, name, grey(value))
    with pytest.raises(
        DataError, match=r"Masks hold the values 0, 1 \(a\.tif\), 2 \(b\.tif\).*--masks instances"
    ):
        open_data(DataSettings(path=tmp_path))
    found = seglens.check_data(DataSettings(path=tmp_path)).of("mask-values")
    assert [(each.severity, len(each.names)) for each in found] == [("error", 2)]
    for kind in ("foreground", "instances"):
        split = open_data(DataSettings(path=tmp_path, masks=kind)).split("all")
        assert all(np.array_equal(mask_of(split, i), BOX) for i in (0, 1))
    names = ("background", "cat", "dog")
    split = open_data(DataSettings(path=tmp_path, classes=names)).split("all")
    assert np.array_equal(mask_of(split, 1), BOX * 2)


@pytest.mark.parametrize(
    ("names", "warned"),
    [
        (("cat", "dog"), True),
        (("background", "dog"), False),
        (("No tumour", "tumour"), False),
        (("bg", "a"), False),
    ],
)
def test_an_object_that_is_named_first_is_warned_of(tmp_path, names, warned):
    put(tmp_path, "a", grey(1), BOX)
    data = open_data(DataSettings(path=tmp_path, classes=names))
    told = [each.text for each in data.warnings if each.kind == "class-names"]
    assert len(told) == warned
    assert all("'cat', names the value 0 of masks" in each for each in told)


def test_three_hundred_objects_are_foreground(tmp_path):
    cells = np.zeros((24, 32), np.uint16)
    cells[::2, ::2] = np.arange(1, 193).reshape(12, 16) + 300
    put(tmp_path, "a", lambda mask, stem: tifffile.imwrite(stem.with_suffix(".tif"), mask), cells)
    split = open_data(DataSettings(path=tmp_path, masks="instances")).split("all")
    assert np.array_equal(mask_of(split, 0), cells > 0)


def test_a_mask_whose_every_pixel_is_ignored_is_an_error(tmp_path):
    put(tmp_path, "a", grey(7), BOX * 0 + 1)
    found = seglens.check_data(DataSettings(path=tmp_path, ignore=7))
    assert [each.text for each in found.of("mask-values")] == [
        "Masks have every pixel ignored, so that nothing of the picture counts."
    ]


COLOURS = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (224, 224, 192)], np.uint8)
FORMS = {
    "lines.txt": "background 0 0 0\ncat 128 0 0\nbig dog 0 128 0\nignore 224 224 192\n",
    "camvid.txt": "128 0 0\tcat\n0 128 0\tbig dog\n0 0 0\tbackground\n224 224 192\tignore\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:128,0,0::\nbig dog:0,128,0::\n"
    "ignore:224,224,192::\n",
    "table.csv": "name,r,g,b\ncat,128,0,0\nbig dog,0,128,0\nbackground,0,0,0\nignore,224,224,192\n",
    "a.json": '{"cat": [128, 0, 0], "big dog": "#008000", "background": [0, 0, 0],"ignore": [224, 224, 192]}',
    "b.json": '[{"name": "background", "color": "#000000"}, {"name": "cat", "color": [128, 0, 0]},'
    '{"name": "big dog", "color": "#008000"}, {"name": "ignore", "color": "#e0e0c0"}]',
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_colours_are_classes_by_a_palette(tmp_path, form, mark):
    (tmp_path / form).write_text(mark + FORMS[form], encoding="utf-8")
    index = np.arange(24 * 32).reshape(24, 32) % 4
    put(
        tmp_path,
        "rgb",
        lambda mask, stem: Image.fromarray(COLOURS[mask]).save(stem.with_suffix(".png")),
        index,
    )
    put(tmp_path, "indexed", palette(COLOURS[::-1].tolist(), lambda mask: 3 - mask), index)
    data = open_data(DataSettings(path=tmp_path, palette=read_palette(tmp_path / form)))
    assert data.task.classes == ("background", "cat", "big dog")
    for position in (0, 1):
        sample = data.split("all")[position]
        assert np.array_equal(sample.valid.numpy(), index != 3)
        assert np.array_equal(mask_of(data.split("all"), position), np.where(index == 3, 0, index))


def test_colours_and_palettes_that_are_not_understood_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("background 0 0 0\ncat 128 0 0\n")
    put(tmp_path, "a", lambda mask, stem: Image.fromarray(COLOURS[mask * 2]).save(stem.with_suffix(".png")))
    split = open_data(DataSettings(path=tmp_path, palette=read_palette(tmp_path / "a.txt"))).split("all")
    with pytest.raises(MaskValueError, match=r"1 colour that the palette lacks, in 120 pixels: 0 128 0"):
        split[0]
    for text, match in {
        "cat 128 0 0\ndog 0 128 0\n": "no background",
        "a 0 0 0\nb 1 1\n": "is no name with three numbers",
        "a 0 0 0\nb 300 0 0\n": r"colour \[300, 0, 0\] is not",
        "a 0 0 0\na 1 1 1\n": "name 'a' twice",
        "a 0 0 0\nb 0 0 0\n": "colour '#000000' twice",
        '{"a": [0.5, 0, 0]}': "is not three numbers",
        "{": "can't be read",
    }.items():
        (tmp_path / "b.txt").write_text(text)
        with pytest.raises(DataError, match=match):
            read_palette(tmp_path / "b.txt")
    two = (("background", "#000000"), ("cat", "#800000"))
    with pytest.raises(SettingError, match="--palette names the classes"):
        open_data(DataSettings(path=tmp_path, palette=two, ignore=255))
    with pytest.raises(SettingError, match="--masks classes needs their names"):
        open_data(DataSettings(path=tmp_path, masks="classes"))


def test_few_bits_of_grey_are_the_classes_that_were_saved(tmp_path):
    index = (np.arange(24 * 32).reshape(24, 32) % 3).astype(np.uint8)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes((row[0::2] << 4 | row[1::2]).tolist()) for row in index)
    head = struct.pack(">IIBBBBB", 32, 24, 4, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert np.array_equal(read_label(tmp_path / "b.png").numpy(), index)


def test_names_with_accents_match_however_they_are_composed(tmp_path):
    put(tmp_path, unicodedata.normalize("NFD", "Müller"), grey(1))
    mask = next((tmp_path / "masks").iterdir())
    mask.rename(mask.with_name(unicodedata.normalize("NFC", mask.name)))
    assert len(open_data(DataSettings(path=tmp_path)).split("all")) == 1


def test_tables_are_utf_8_with_or_without_a_mark_and_others_are_named(tmp_path):
    text = "image,label\nMüller,1\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.csv").write_bytes(text.encode(encoding))
        assert read_label_table(tmp_path / "a.csv") == {"Müller": True}
    (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.csv is not a text in UTF-8: line 2 has the byte 0xfc.*iconv"):
        read_text(tmp_path / "a.csv")


def test_webp_without_loss_keeps_classes_and_lossy_files_are_refused_as_labels(tmp_path):
    index = np.repeat((BOX * 2)[..., None], 3, axis=2)
    Image.fromarray(index).save(tmp_path / "a.webp", lossless=True)
    assert np.array_equal(read_label(tmp_path / "a.webp").numpy(), BOX * 2)
    for suffix in ("webp", "jpg"):
        Image.fromarray(index).save(tmp_path / f"b.{suffix}")
        with pytest.raises(MaskValueError, match=rf"b\.{suffix} is in a lossy format"):
            read_label(tmp_path / f"b.{suffix}")


def test_a_nucleus_in_a_green_palette_is_seen(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / "a" / part).mkdir(parents=True)
    Image.fromarray(BOX * 9).save(tmp_path / "a" / "images" / "a.png")
    palette([(0, 0, 0), (0, 200, 0)], lambda mask: mask)(BOX, tmp_path / "a" / "masks" / "1")
    split = open_data(DataSettings(path=tmp_path, layout="nuclei")).split("all")
    assert np.array_equal(mask_of(split, 0), BOX)


def test_pixels_of_which_a_geotiff_knows_nothing_are_no_object(tmp_path):
    """GDAL writes the value into tag 42113; 0 is the background anyway."""

    def tagged(value, known):
        extra = [(42113, "s", 0, known, True)]
        return lambda mask, stem: tifffile.imwrite(stem.with_suffix(".tif"), mask * value, extratags=extra)

    put(tmp_path, "a", tagged(np.uint8(255), "255"))
    with pytest.raises(MaskValueError, match=r"a\.tif says \(GDAL_NODATA\) that 255 marks.*--ignore 255"):
        open_data(DataSettings(path=tmp_path)).split("all")[0]
    assert not open_data(DataSettings(path=tmp_path, ignore=255)).split("all")[0].valid[BOX > 0].any()
    for known in ("0", "7", "nan", "-9999", "none"):
        put(tmp_path, "a", tagged(np.uint8(1), known))
        assert np.array_equal(mask_of(open_data(DataSettings(path=tmp_path)).split("all"), 0), BOX)


CLASSES = ("background", "a", "b", "c")
OF_CLASSES = np.array([(0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200)])


def with_classes(*there):
    mask = np.zeros_like(BOX)
    for place, label in enumerate(there):
        mask[4 + 5 * place : 8 + 5 * place, 4:20] = label
    return mask


def only_used(colours):
    """Write as programs do that keep the colours that a picture has, and number them anew."""

    def write(mask, stem):
        used = np.unique(mask)
        palette(colours[used].tolist(), lambda each: np.searchsorted(used, each))(mask, stem)

    return write


def gif(mask, stem):
    Image.fromarray(mask).save(stem.with_suffix(".gif"))


def read_all(settings):
    split = open_data(settings).split("all")
    return [split[index] for index in range(len(split))]


@pytest.mark.parametrize(
    "write",
    [only_used(OF_CLASSES), only_used(np.arange(4).repeat(3).reshape(4, 3)), gif],
    ids=["colours", "greys", "gif"],
)
def test_palettes_that_number_colours_anew_in_every_file_are_refused(tmp_path, write):
    put(tmp_path, "whole", write, with_classes(1, 2, 3))
    put(tmp_path, "lacks-one", write, with_classes(2, 3))
    settings = DataSettings(path=tmp_path, classes=CLASSES)
    with pytest.raises(DataError, match=r"number colours differently|both could be classes"):
        read_all(settings)
    found = seglens.check_data(settings)
    assert found.of("mask-values")[0].severity == "error"


def test_palettes_that_agree_are_read_whatever_entries_they_have(tmp_path):
    masks = {"whole": with_classes(1, 2, 3), "lacks-one": with_classes(2, 3), "grey": with_classes(1, 3)}
    put(tmp_path, "whole", palette(OF_CLASSES.tolist(), lambda mask: mask), masks["whole"])
    more = [*OF_CLASSES.tolist(), (9, 9, 9)]
    put(tmp_path, "lacks-one", palette(more, lambda mask: mask), masks["lacks-one"])
    put(tmp_path, "grey", lambda mask, stem: Image.fromarray(mask).save(f"{stem}.png"), masks["grey"])
    split = open_data(DataSettings(path=tmp_path, classes=CLASSES)).split("all")
    for position, entry in enumerate(split.entries):
        np.testing.assert_array_equal(mask_of(split, position), masks[entry.name])


def test_colours_named_by_a_palette_file_mean_the_same_in_every_file(tmp_path):
    masks = {"whole": with_classes(1, 2, 3), "lacks-one": with_classes(2, 3)}
    for name, mask in masks.items():
        put(tmp_path, name, only_used(OF_CLASSES), mask)
    lines = [f"{name} {r} {g} {b}" for name, (r, g, b) in zip(CLASSES, OF_CLASSES, strict=True)]
    (tmp_path / "colours.txt").write_text("\n".join(lines))
    named = DataSettings(path=tmp_path, palette=read_palette(tmp_path / "colours.txt"))
    split = open_data(named).split("all")
    for position, entry in enumerate(split.entries):
        np.testing.assert_array_equal(mask_of(split, position), masks[entry.name])


def test_a_foreground_that_is_the_only_colour_of_a_file_is_not_taken_for_background(tmp_path):
    red = np.array([(0, 0, 0), (200, 0, 0)])
    put(tmp_path, "some", only_used(red), BOX)
    put(tmp_path, "all", only_used(red), np.ones_like(BOX))
    with pytest.raises(DataError, match=r"\(200, 0, 0\) is 0 in all.png and 1 in some.png"):
        open_data(DataSettings(path=tmp_path))
