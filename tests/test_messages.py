"""Every error that a user can cause, with its message: one line with the place, the fault and what was expected."""

import ast
import gzip
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent

CAT, DOG = "/m/01yrx", "/m/0bt9lr"
BOX = {"id": "a1", "label": CAT, "x0": 0.1, "x1": 0.9, "y0": 0.2, "y1": 0.8}
POINT = {"id": "a1", "annotations": [BOX]}
BOXES = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded\n"
INDEX = "ImageID,Subset,OriginalURL,Rotation\n"
MASKS = "MaskPath,ImageID,LabelName,BoxXMin,BoxXMax,BoxYMin,BoxYMax\n"
GOOD = {
    "classes.txt": f"{CAT}\n{DOG}\n",
    "descriptions.csv": f"{CAT},Cat\n{DOG},Dog\n/m/0cvnqh,Bench\n/m/076lb9,Bench\n",
    "boxes.csv": f"{BOXES}a1,xclick,{CAT},1,0.1,0.9,0.2,0.8,0\n",
    "images.csv": f"{INDEX}a1,train,http://127.0.0.1:9/a1.jpg,0.0\n",
    "labels.csv": f"ImageID,Source,LabelName,Confidence\na1,verification,{CAT},1\n",
    "hierarchy.json": json.dumps({"LabelName": "/m/0bl9f", "Subcategory": [{"LabelName": CAT}]}),
    "images.json": '[\n{"id":"a1","url":"http://127.0.0.1:9/a1.jpg"}\n]\n',
    "points.json": f"[\n{json.dumps(POINT)}\n]\n",
}
SETTINGS = json.dumps(
    {"max_side": 256, "quality": 85, "min_side": 1, "fit": "longer", "format": "jpeg"}
    | dict.fromkeys(["precise", "keep_damaged", "rotate_upright"], False)
)
ARGUMENTS = {
    "translate_class_descriptions": {
        "trainable_classes_path": "classes.txt", "class_description_path": "descriptions.csv",
        "trainable_translated_path": "out/names.json",
    },
    "process_metadata": {
        "annotations_input_path": "boxes.csv", "image_index_input_path": "images.csv",
        "trainable_classes_path": "classes.txt", "point_output_path": "out/points.json",
        "image_index_output_path": "out/images.json",
    },
    "download_images": {"images_path": "images.json", "images_output_directory": "out", "retries": "0"},
    "process_images": {
        "image_directory": "photos", "image_saving_directory": "out", "datapoints_input_path": "points.json",
        "datapoints_output_path": "out/points.json", "workers": "1",
    },
    "create_label_map": {
        "trainable_classes_path": "classes.txt", "class_description_path": "descriptions.csv",
        "label_map_save_path": "out/label_map.pbtxt",
    },
    "record_maker": {
        "points_path": "points.json", "saved_images_directory": "photos", "trainable_classes_path": "classes.txt",
        "record_save_path": "out/train.tfrecord", "workers": "1",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A mistake of a user in a step, and the message for it."""

    step: str
    message: str
    files: dict[str, str | bytes | None] = field(default_factory=dict)  # None: removed
    flags: dict[str, str | None] = field(default_factory=dict)  # None: left out; "": without a value
    environment: dict[str, str] = field(default_factory=dict)
    code: int = 1


def case(step, message, files=None, code=1, environment=None, **flags):
    return Case(step, message, files or {}, flags, environment or {}, code)


def usage(step, message, **flags):
    return case(step, f"error: {message}", code=2, **flags)


def point(**changes) -> dict[str, str | bytes | None]:
    """Return a datapoints file with these changes in its second line."""
    return {"points.json": json.dumps([{**POINT, **changes}])}


def box(**changes) -> dict[str, str | bytes | None]:
    return point(annotations=[{key: value for key, value in {**BOX, **changes}.items() if value is not None}])


LABEL_MAP, TRANSLATE, METADATA = "create_label_map", "translate_class_descriptions", "process_metadata"
DOWNLOAD, PROCESS, RECORDS = "download_images", "process_images", "record_maker"
CHOSEN = {"trainable_classes_output_path": "out/classes.txt"}
NAMED = {**CHOSEN, "class_description_path": "descriptions.csv"}

EMPTY_ZIP = b"PK\5\6" + bytes(18)

CASES = [
    # files of any kind
    case(LABEL_MAP, "classes.txt: no such file", {"classes.txt": None}),
    case(LABEL_MAP, "classes.txt:2: not UTF-8 text", {"classes.txt": b"\n\xff\n"}),
    case(LABEL_MAP, "classes.txt: UTF-16 text, UTF-8 was expected: save it as UTF-8", {"classes.txt": CAT.encode("utf-16")}),
    case(LABEL_MAP, "descriptions.csv: UTF-16 text, UTF-8 was expected: save it as UTF-8", {"descriptions.csv": f"{CAT},Cat".encode("utf-16-be")}),
    case(LABEL_MAP, "descriptions.csv: gzip data, text was expected: unpack it, or let its name end in .gz", {"descriptions.csv": gzip.compress(b"")}),
    case(METADATA, "boxes.csv: a zip file or a spreadsheet, text was expected: unpack it, or save it as CSV", {"boxes.csv": EMPTY_ZIP}),
    case(METADATA, "hierarchy.json: UTF-16 text, UTF-8 was expected: save it as UTF-8", {"hierarchy.json": "{}".encode("utf-16-le")}, hierarchy_path="hierarchy.json"),
    case(PROCESS, "points.json: gzip data, text was expected: unpack it, or let its name end in .gz", {"points.json": gzip.compress(b"[]")}),
    case(LABEL_MAP, "out/label_map.pbtxt: not a regular file, a file to write was expected", {"out/label_map.pbtxt/x": ""}),
    case(LABEL_MAP, "out: not a folder, a folder to write into was expected", {"out": ""}),
    case(METADATA, ".: a folder, a file was expected", annotations_input_path="."),
    case(METADATA, "/dev/null: not a regular file, and it is read more than once: a file was expected", annotations_input_path="/dev/null"),
    case(METADATA, "/dev/null: not a regular file, and it is read more than once: a file was expected", image_labels_input_path="/dev/null"),
    case(METADATA, "boxes.csv.gz: damaged gzip file (Not a gzipped file (b'no'))", {"boxes.csv.gz": b"no gzip"}, annotations_input_path="boxes.csv.gz"),
    case(DOWNLOAD, "bad.csv: none of its images is in the index, such as x9", {"bad.csv": "id,reason,detail,url\nx9,damaged,,\n"}, refetch="bad.csv"),
    case(DOWNLOAD, "photos: a1.jpg and train/a1.jpg are files of one image; move one of them out of the folder", {"photos/train/a1.jpg": "x"}, images_output_directory="photos"),
    case(DOWNLOAD, "photos/a1.JPG: only <id>.jpg directly in the folder is resized in place; run without --max_side", {"photos/a1.jpg": None, "photos/a1.JPG": "x"}, images_output_directory="photos", max_side="9"),
    case(PROCESS, "photos: train_0/a1.jpg and train_1/a1.png are files of one image; move one of them out of the folder", {"photos/a1.jpg": None, "photos/train_0/a1.jpg": "x", "photos/train_1/a1.png": "x"}),
    case(PROCESS, "photos/train/a1.jpg: only <id>.jpg directly in the folder is resized in place; give an --image_saving_directory", {"photos/a1.jpg": None, "photos/train/a1.jpg": "x"}, image_saving_directory=None),
    case(PROCESS, "points.json: not a folder, a folder to write into was expected", image_saving_directory="points.json"),
    # class lists and descriptions
    case(LABEL_MAP, "classes.txt: no classes in it, one MID a line was expected", {"classes.txt": "\n\n"}),
    case(LABEL_MAP, "classes.txt:2: 'Cat', a class MID such as /m/01yrx was expected", {"classes.txt": f"{CAT}\nCat\n"}),
    case(LABEL_MAP, "classes.txt:3: duplicate class /m/01yrx, first in line 1", {"classes.txt": f"{CAT}\n{DOG}\n{CAT}\n"}),
    case(LABEL_MAP, "descriptions.csv: no description of 1 of the 2 classes in classes.txt: /m/0zzz; give the class-descriptions.csv of the same release", {"classes.txt": f"{CAT}\n/m/0zzz\n"}),
    case(LABEL_MAP, "descriptions.csv: no class descriptions in it", {"descriptions.csv": "\n"}),
    case(LABEL_MAP, "descriptions.csv:1: 3 fields, two were expected: MID, name", {"descriptions.csv": f"{CAT},Cat,feline\n"}),
    case(LABEL_MAP, "descriptions.csv:1: columns separated by semicolons, commas were expected", {"descriptions.csv": f"LabelName;DisplayName\n{CAT};Cat\n"}),
    case(LABEL_MAP, "descriptions.csv:2: columns separated by tabs, commas were expected", {"descriptions.csv": f"\n{CAT}\tCat\n"}),
    case(LABEL_MAP, "descriptions.csv:2: 'Dog', a class MID such as /m/01yrx was expected", {"descriptions.csv": f"{CAT},Cat\nDog,{DOG}\n"}),
    case(LABEL_MAP, "descriptions.csv:2: /m/01yrx is named 'Dog', but 'Cat' above", {"descriptions.csv": f"{CAT},Cat\n{CAT},Dog\n"}),
    case(TRANSLATE, "folder: no file in this folder is a class list (one MID a line)", {"folder/readme.txt": "hello\n"}, trainable_classes_path="folder"),
    case(TRANSLATE, "folder: 2 files in this folder are a class list (one MID a line), give one of them: a.txt, b.txt", {"folder/a.txt": f"{CAT}\n", "folder/b.txt": f"{DOG}\n"}, trainable_classes_path="folder"),
    usage(TRANSLATE, "classes.txt is an input: an output would replace it", trainable_translated_path="classes.txt"),
    usage(LABEL_MAP, "descriptions.csv is an input: an output would replace it", label_map_save_path="descriptions.csv"),
    # CSV
    case(METADATA, "boxes.csv: an empty file, a header with ImageID, LabelName, XMin, XMax, YMin, YMax was expected", {"boxes.csv": ""}),
    case(METADATA, "boxes.csv:1: no column XMin, XMax, YMin, YMax; the header has ImageID, LabelName", {"boxes.csv": "ImageID,LabelName\n"}),
    case(METADATA, "boxes.csv:1: columns separated by semicolons, commas were expected", {"boxes.csv": BOXES.replace(",", ";")}),
    case(METADATA, "boxes.csv:1: duplicate column name in the header ImageID, ImageID, LabelName, XMin, XMax, YMin, YMax", {"boxes.csv": "ImageID,ImageID,LabelName,XMin,XMax,YMin,YMax\n"}),
    case(METADATA, "boxes.csv:2: 5 fields, 9 were expected", {"boxes.csv": f"{BOXES}a1,x,{CAT},1,0.1\n"}),
    case(METADATA, "boxes.csv:2: no line end after the last row; is the file cut short?", {"boxes.csv": f"{BOXES}a1,x,{CAT},1,0.1,0.9,0.2,0.8,0"}),
    case(METADATA, "boxes.csv:2: a NUL byte, text was expected", {"boxes.csv": f"{BOXES}a1,\0,{CAT},1,0.1,0.9,0.2,0.8,0\n"}),
    case(METADATA, "boxes.csv:2: a carriage return inside a line, LF or CRLF was expected", {"boxes.csv": f"{BOXES}a1,x\ry,{CAT},1,0.1,0.9,0.2,0.8,0\n"}),
    case(METADATA, "boxes.csv:2: unexpected end of data, a CSV row was expected", {"boxes.csv": f'{BOXES}a1,"x,{CAT},1,0.1,0.9,0.2,0.8,0\n'}),
    # boxes, index, labels
    case(METADATA, "boxes.csv:2: ImageID '../a1', an image id was expected", {"boxes.csv": f"{BOXES}../a1,x,{CAT},1,0.1,0.9,0.2,0.8,0\n"}),
    case(METADATA, "boxes.csv:2: XMin is '', a number was expected", {"boxes.csv": f"{BOXES}a1,x,{CAT},1,,0.9,0.2,0.8,0\n"}),
    case(METADATA, "boxes.csv:2: IsOccluded is '2', 1, 0 or -1 was expected", {"boxes.csv": f"{BOXES}a1,x,{CAT},1,0.1,0.9,0.2,0.8,2\n"}),
    case(METADATA, "boxes.csv: no box to keep: asked for 2 classes (/m/01yrx, /m/0bt9lr), the file has 1 classes (/m/0zzz); rows=1, other_classes=1", {"boxes.csv": f"{BOXES}a1,x,/m/0zzz,1,0.1,0.9,0.2,0.8,0\n"}),
    case(METADATA, "boxes.csv: no boxes in it", {"boxes.csv": BOXES + ",,,,,,,,\n"}),
    case(METADATA, "boxes.csv: no box to keep: line 2: XMin is 64, pixels? A number from 0 to 1 was expected; rows=3, outside_image=2, other_classes=1", {"boxes.csv": f"{BOXES}a1,x,{CAT},1,64,128,0.2,320,0\na1,x,{CAT},1,64,128,64,320,0\na1,x,/m/0zzz,1,0,1,0,1,0\n"}),
    case(METADATA, "boxes.csv: no box to keep: line 2: YMax is 1.0021, a number from 0 to 1 was expected; see --clip_boxes; rows=1, outside_image=1", {"boxes.csv": f"{BOXES}a1,x,{CAT},1,0,1,0.2,1.0021,0\n"}),
    case(METADATA, "boxes.csv: no box to keep: most are without_area; rows=3, without_area=2, images_not_in_index=1", {"boxes.csv": f"{BOXES}a1,x,{CAT},1,0.9,0.1,0.2,0.8,0\na1,x,{CAT},1,0.9,0.2,0.2,0.8,0\nb2,x,{CAT},1,0,1,0,1,0\n"}),
    case(METADATA, "images.csv: no images in it", {"images.csv": INDEX}),
    case(METADATA, "images.csv:2: ImageID 'a/1', an image id was expected", {"images.csv": f"{INDEX}a/1,train,http://x/,0.0\n"}),
    case(METADATA, "images.csv:2: Rotation is 'ninety', a number was expected", {"images.csv": f"{INDEX}a1,train,http://x/,ninety\n"}),
    case(METADATA, "images.csv: none of the 1 images with boxes to keep in boxes.csv is in this index, one of the same release and split was expected: the index has b2, the box file has a1", {"images.csv": f"{INDEX}b2,train,http://x/,\n"}),
    case(METADATA, "labels.csv: none of its 1 image labels is of an image in the index, those of the same release and split were expected: the label file has a1.jpg (a file name?), the index has a1", {"labels.csv": f"ImageID,LabelName,Confidence\na1.jpg,{CAT},1\n"}, image_labels_input_path="labels.csv"),
    case(METADATA, "labels.csv: none of its 0 image labels is of an image in the index, those of the same release and split were expected: the label file has none, the index has a1", {"labels.csv": "ImageID,LabelName,Confidence\n"}, image_labels_input_path="labels.csv"),
    case(METADATA, "labels.csv:2: Confidence is '0.5', 0 or 1 was expected", {"labels.csv": f"ImageID,LabelName,Confidence\na1,{CAT},0.5\n"}, image_labels_input_path="labels.csv"),
    # masks
    case(METADATA, "masks.csv: no such file", masks_input_path="masks.csv"),
    case(METADATA, "masks.csv:1: no column MaskPath, BoxXMin, BoxXMax, BoxYMin, BoxYMax; the header has ImageID, LabelName", {"masks.csv": "ImageID,LabelName\n"}, masks_input_path="masks.csv"),
    case(METADATA, "masks.csv:2: MaskPath is '../m.png', a file name that ends in .png was expected", {"masks.csv": f"{MASKS}../m.png,a1,{CAT},0.1,0.9,0.2,0.8\n"}, masks_input_path="masks.csv"),
    case(METADATA, "masks.csv:2: BoxXMin is 'left', a number from 0 to 1 was expected", {"masks.csv": f"{MASKS}m.png,a1,{CAT},left,0.9,0.2,0.8\n"}, masks_input_path="masks.csv"),
    case(METADATA, "masks.csv:2: BoxXMax is '9', a number from 0 to 1 was expected", {"masks.csv": f"{MASKS}m.png,a1,{CAT},0.1,9,0.2,0.8\n"}, masks_input_path="masks.csv"),
    case(METADATA, f"masks.csv: no mask matches a box of boxes.csv: the first mask is b2 {CAT} 0.1 0.9 0.2 0.8, the first kept box a1 {CAT} 0.1 0.9 0.2 0.8; the masks of the same split were expected", {"masks.csv": f"{MASKS}m.png,b2,{CAT},0.1,0.9,0.2,0.8\n"}, masks_input_path="masks.csv"),
    case(METADATA, "boxes.csv: no box to keep: most are images_not_in_index; rows=3, images_not_in_index=1, images_without_mask=1", {"boxes.csv": f"{BOXES}a1,x,{CAT},1,0.1,0.9,0.2,0.8,0\na1,x,{DOG},1,0.1,0.9,0.2,0.8,0\nb2,x,{DOG},1,0.1,0.9,0.2,0.8,0\n", "masks.csv": f"{MASKS}m.png,a1,{CAT},0.1,0.9,0.2,0.8\n"}, masks_input_path="masks.csv", boxes_without_mask="drop_image"),
    case(METADATA, f"masks.csv: no mask matches a box of boxes.csv: the first mask is missing, the first kept box a1 {CAT} 0.1 0.9 0.2 0.8; the masks of the same split were expected", {"masks.csv": MASKS}, masks_input_path="masks.csv"),
    # choices
    case(METADATA, "--classes: class 'Unicorn' is unknown", **NAMED, classes="Unicorn"),
    case(METADATA, "wanted.txt:3: class 'Unicorn' is unknown", {"wanted.txt": "Cat\n\nUnicorn\n"}, **NAMED, classes_path="wanted.txt"),
    case(METADATA, "--classes: class 'Bench' is not trainable (/m/0cvnqh, /m/076lb9)", **NAMED, classes="Bench"),
    case(METADATA, "--classes: 2 classes are named 'Bench': give a MID (/m/0cvnqh or /m/076lb9)", {"classes.txt": f"{CAT}\n/m/0cvnqh\n/m/076lb9\n"}, **NAMED, classes="Bench"),
    case(METADATA, "--classes: class 'Cat' is a name: names need --class_description_path", **CHOSEN, classes="Cat"),
    case(METADATA, "wanted.txt:2: class 'Cat' is a name: names need --class_description_path", {"wanted.txt": f"{DOG}\nCat\n"}, **CHOSEN, classes_path="wanted.txt"),
    case(METADATA, "--classes: class /m/0zzz is not one of the 2 trainable classes", **NAMED, classes="/m/0zzz"),
    case(METADATA, "--classes: unexpected end of data, names separated by commas were expected", **NAMED, classes='"Cat'),
    case(METADATA, "wanted.txt: no class in it, names or MIDs were expected", {"wanted.txt": "\n"}, **NAMED, classes_path="wanted.txt"),
    case(METADATA, "ids.txt: no image ids in it, one a line was expected", {"ids.txt": "\n"}, image_ids_path="ids.txt"),
    case(METADATA, "ids.txt:1: 'a b', an image id was expected", {"ids.txt": "a b\n"}, image_ids_path="ids.txt"),
    case(METADATA, "ids.txt: none of its 2 image ids is in images.csv: the list has 17 (a decimal number, or leading zeros lost?), the index has a1", {"ids.txt": "17\n21\n"}, image_ids_path="ids.txt"),
    case(METADATA, "boxes.csv: no box to keep in the images of --max_images", {"images.csv": f"{INDEX}a1,train,,\nb1,train,,\n"}, max_images="1", keep_images_without_boxes="1"),
    case(METADATA, "boxes.csv: no box to keep in the images of --image_ids_path", {"ids.txt": "b2\n", "images.csv": f"{INDEX}a1,train,,\nb2,train,,\n"}, image_ids_path="ids.txt"),
    case(METADATA, "hierarchy.json: not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)), the class hierarchy was expected", {"hierarchy.json": "{"}, hierarchy_path="hierarchy.json"),
    case(METADATA, "hierarchy.json: [], an object with LabelName was expected", {"hierarchy.json": "[]"}, hierarchy_path="hierarchy.json"),
    case(METADATA, "hierarchy.json: Subcategory of /m/1 is not an array", {"hierarchy.json": '{"LabelName": "/m/1", "Subcategory": 3}'}, hierarchy_path="hierarchy.json"),
    case(METADATA, "boxes.csv:1: no column IsInside; the header has ImageID, Source, LabelName, Confidence, XMin, XMax, YMin, YMax, IsOccluded", exclude="inside"),
    usage(METADATA, "--classes and --classes_path need --trainable_classes_output_path for the chosen list", classes="Cat"),
    usage(METADATA, "--expand_hierarchy needs --hierarchy_path", expand_hierarchy=""),
    usage(METADATA, "--keep_labels_only needs --image_labels_input_path", keep_labels_only=""),
    usage(METADATA, "--keep_images_without_boxes needs a number N, or --image_ids_path", keep_images_without_boxes=""),
    usage(METADATA, "--keep_images_without_boxes and --keep_labels_only exclude each other", keep_images_without_boxes="1", keep_labels_only="", image_labels_input_path="labels.csv"),
    case(METADATA, "boxes.csv: no box to keep: most are too_small; rows=1, too_small=1", {"images.csv": f"{INDEX}a1,train,,\nb2,train,,\n"}, keep_images_without_boxes="9", min_box_side="0.9"),
    usage(METADATA, "--boxes_without_mask needs --masks_input_path", boxes_without_mask="drop_box"),
    usage(METADATA, "two outputs have the same path", point_output_path="out/images.json"),
    usage(METADATA, "boxes.csv is an input: an output would replace it", point_output_path="boxes.csv"),
    usage(METADATA, "argument --exclude: 'blurred' is not one of occluded, truncated, group_of, depiction, inside", exclude="blurred"),
    usage(METADATA, "argument --min_box_side: '1.5' is not a number from 0 to 1", min_box_side="1.5"),
    usage(METADATA, "argument --max_images: '0' is not a whole number of at least 1", max_images="0"),
    usage(METADATA, "argument --seed: '9999999999' is more than 1000000000", seed="9999999999"),
    # JSON
    case(DOWNLOAD, "images.json:3: the file ends in the middle of an array or object; is it cut short?", {"images.json": '[\n{"id":"a1","url":"http://x/"},\n'}),
    case(DOWNLOAD, "images.json:3: not JSON (a comma too many or too few)", {"images.json": '[\n{"id":"a1","url":"http://x/"}\n{"id":"a2"}]'}),
    case(DOWNLOAD, "images.json:1: text after the end of the array", {"images.json": "[] []"}),
    case(DOWNLOAD, "images.json:3: text after the end of the array", {"images.json": '[\n{"id":"a1"}\n] more'}),
    case(DOWNLOAD, "images.json:2: not JSON (Expecting property name enclosed in double quotes)", {"images.json": "[\n{'id':'a1'}\n]"}),
    case(DOWNLOAD, "images.json:1: nested too deeply", {"images.json": "[" * 100_000}),
    # the index of step 4
    case(DOWNLOAD, "images.json: no images in it", {"images.json": "[]"}),
    case(DOWNLOAD, "images.json:1: Expected `object`, got `str`: 'a1'", {"images.json": '["a1"]'}),
    case(DOWNLOAD, "images.json:1: Expected `str` matching regex '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\\\\Z' - at `$.id`: '../a1'", {"images.json": '[{"id":"../a1","url":"http://x/"}]'}),
    case(DOWNLOAD, "images.json:1: Expected `str | null`, got `int` - at `$.url`: 7", {"images.json": '[{"id":"a1","url":7}]'}),
    case(DOWNLOAD, "images.json:2: duplicate image id a1", {"images.json": '[{"id":"a1","url":"http://x/"},\n{"id":"a1","url":"http://x/"}]'}),
    # step 4
    case(DOWNLOAD, "none of the 1 images was downloaded, 1 of them with connection, such as a1: original: Connection refused (http://127.0.0.1:9/a1.jpg); run the same command again to retry these; see out/download_failures.csv"),
    case(DOWNLOAD, "the first 200 images all failed, 200 of them with connection, such as a0: original: Connection refused (http://127.0.0.1:9/a); run the same command again to retry these", {"images.json": json.dumps([{"id": f"a{n}", "url": "http://127.0.0.1:9/a"} for n in range(200)])}),
    case(DOWNLOAD, "1 of 2 images failed, --max_failures is 0; 1 of them with no_source, such as a2: no address in the index for any --image_source; --image_source may name more sources; see out/download_failures.csv", {"images.json": '[{"id":"a1","url":""},{"id":"a2","url":""}]', "out/a1.jpg": b"\xff"}, max_failures="0"),
    case(DOWNLOAD, "nowhere.pem: no such file, REQUESTS_CA_BUNDLE names certificates", environment={"REQUESTS_CA_BUNDLE": "nowhere.pem"}),
    case(DOWNLOAD, "HTTPS_PROXY is 'socks5://127.0.0.1:9', an http:// or https:// address was expected", environment={"HTTPS_PROXY": "socks5://127.0.0.1:9"}),
    case(DOWNLOAD, "out/download_failures.csv:1: the header id,reason,detail,url was expected", {"out/download_failures.csv": "id,why\n"}),
    case(DOWNLOAD, "out/.download_failures.csv.journal:1: 2 fields, 4 were expected", {"out/.download_failures.csv.journal": "a1,gone\n"}),
    case(DOWNLOAD, "nowhere://a: a path, or an address that begins with s3://, s3a://, gs://, gcs:// was expected", images_output_directory="nowhere://a"),
    case(DOWNLOAD, "out/.download_refused:1: key, reason and detail of a refusal were expected", {"out/.download_refused": "a1,gone\n"}),
    usage(DOWNLOAD, "argument --image_source: 'flickr' is not one of mirror, original, thumbnail", image_source="mirror,flickr"),
    usage(DOWNLOAD, "argument --image_source: duplicate source 'mirror'", image_source="mirror,mirror"),
    usage(DOWNLOAD, "argument --mirror_url: 'ftp://mirror': ftp: only http and https addresses are downloaded", mirror_url="ftp://mirror"),
    usage(DOWNLOAD, "argument --deadline: '0' is not a number of seconds above 0", deadline="0"),
    usage(DOWNLOAD, "argument --user_agent: 'a\\nb' is not printable ASCII text", user_agent="a\nb"),
    usage(DOWNLOAD, "argument --max_failures: 'many' is neither a whole number nor a percentage such as 5%", max_failures="many"),
    usage(DOWNLOAD, "--quality needs --max_side", quality="90"),
    usage(DOWNLOAD, "argument --processes: '1000' is more than 256", processes="1000"),
    # datapoints
    case(PROCESS, "points.json: no images in it", {"points.json": "[]"}),
    case(PROCESS, "points.json:1: Expected `object`, got `str`: 'a1'", {"points.json": '["a1"]'}),
    case(PROCESS, "points.json:1: Expected `str` matching regex '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\\\\Z' - at `$.id`: 'a/1'", point(id="a/1")),
    case(PROCESS, "points.json:1: Expected `array`, got `object` - at `$.annotations`: {}", point(annotations={})),
    case(PROCESS, "points.json:1: Object missing required field `label` - at `$.annotations[0]`: {'x0': 0.1}", point(annotations=[{"x0": 0.1}])),
    case(PROCESS, "points.json:1: Expected `float` <= 1.0 - at `$.annotations[0].x0`: 1.5", box(x0=1.5)),
    case(PROCESS, "points.json:1: Expected x0 < x1 and y0 < y1 - at `$.annotations[0]`: {'id': 'a1', 'label': '/m/01yrx', 'x0': 0.9, 'x1': 0.9, 'y0': 0.2, 'y1': 0.8}", box(x0=0.9)),
    case(PROCESS, "points.json:1: Expected `array`, got `object` - at `$.image_labels`: {}", point(image_labels={})),
    case(PROCESS, "points.json:1: Expected `float` <= 1.0 - at `$.image_labels[0].confidence`: 2", point(image_labels=[{"label": CAT, "confidence": 2}])),
    # step 5
    case(PROCESS, "nowhere: no such folder, one with images was expected", image_directory="nowhere"),
    case(PROCESS, "none of the 1 images can be used, see out/process_failures.csv", {"photos/a1.jpg": None}),
    case(PROCESS, "none of the 1 images can be used, see out/process_failures.csv", {"photos/a1.jpg": None}, max_failures="0%"),
    case(PROCESS, "points.json:1: rotation of a1 is 45, 0, 90, 180 or 270 was expected", point(rotation=45), rotate_upright=""),
    case(PROCESS, "points.json:1: duplicate image id a1", {"points.json": json.dumps([POINT, POINT])}),
    case(PROCESS, "out/process_settings.json: not the settings of a folder of images; remove it to make them again", {"out/process_settings.json": "[]"}),
    case(PROCESS, "out/process_settings.json: the images in this folder were made with max_side None, not 256, quality None, not 85, min_side None, not 1, fit None, not longer, format None, not jpeg, precise None, not False, keep_damaged None, not False, rotate_upright None, not False; --overwrite makes them again", {"out/process_settings.json": "{}"}),
    case(PROCESS, "out/.process_finished:1: 'a1', id, size, time, turn, width, height and size were expected", {"out/.process_finished": "a1\n", "out/process_settings.json": SETTINGS}),
    case(PROCESS, "nowhere: no such folder, one with masks was expected", masks_directory="nowhere"),
    case(PROCESS, "photos: no masks in it, *-masks-[0-9a-f].zip or *.png were expected", masks_directory="photos"),
    case(PROCESS, "s3://bucket/masks: masks are not read from a store: copy the zips to a folder on disk", masks_directory="s3://bucket/masks"),
    case(PROCESS, "masks/train-masks-0.zip: damaged zip file (its end is missing)", {"masks/train-masks-0.zip": "PK"}, masks_directory="masks"),
    case(PROCESS, "masks/*-masks-a.zip: no such file, it holds masks of a1", {"masks/train-masks-0.zip": EMPTY_ZIP} | box(mask="a1_0.png"), masks_directory="masks"),
    case(PROCESS, "points.json:1: mask '../a1.png' of a1, the name of a file was expected", {"masks/a1.png": ""} | box(mask="../a1.png"), masks_directory="masks"),
    case(PROCESS, "masks: none of the 1 masks can be used: check step 3's --masks_input_path", {"masks/a1_0.png": ""} | box(mask="a1_0.png"), masks_directory="masks"),
    usage(PROCESS, "--rotate_upright is for boxes on stored pixels, --exif_upright for upright ones", rotate_upright="", exif_upright=""),
    usage(PROCESS, "--rotate_upright needs an --image_saving_directory other than the --image_directory", image_saving_directory=None, rotate_upright=""),
    # step 7
    case(RECORDS, "nowhere: no such folder, the resized images were expected", saved_images_directory="nowhere"),
    case(RECORDS, "points.json: no record can be made of its 1 images: 1 missing in --saved_images_directory", {"photos/a1.jpg": None}),
    case(RECORDS, "points.json: no record can be made of its 1 images: 1 without a box or verified label of a trainable class", point(annotations=[]), keep_without_boxes=""),
    case(RECORDS, "photos: a folder, a file name for the records was expected", record_save_path="photos"),
    usage(RECORDS, "two outputs have the same path", eval_record_save_path="out/train.tfrecord", eval_fraction="0.5"),
    usage(RECORDS, "two outputs have the same path", report_path="out/train.tfrecord"),
    usage(RECORDS, "points.json is an input: an output would replace it", coco_path="points.json"),
    case(RECORDS, "out/eval.tfrecord: the split leaves no image for this file", eval_record_save_path="out/eval.tfrecord", eval_subset="test"),
    usage(RECORDS, "--eval_record_save_path goes with --eval_fraction or --eval_subset", eval_fraction="0.5"),
    case(RECORDS, "all/all.tfrecord: the name before the first dot becomes the TFDS split: letters, digits, _ and - were expected, and not all", tfds_metadata="", num_shards="1", record_save_path="all/all.tfrecord"),
    case(RECORDS, "out/a.tfrecord: training and evaluation records would be one split of TFDS", tfds_metadata="", num_shards="1", record_save_path="out/a.tfrecord", eval_record_save_path="out/a.records", eval_fraction="0.5"),
    case(RECORDS, "out/dataset_info.json: not written by --tfds_metadata; give the records a folder of their own", {"out/dataset_info.json": "{}"}, tfds_metadata="", num_shards="1"),
    usage(RECORDS, "--tfds_metadata needs --num_shards or --shard_bytes, and no --compression", tfds_metadata=""),
    case(RECORDS, f"map.pbtxt: id 1 is '{DOG}', but id 1 is '{CAT}' by the class list classes.txt; make the label map and the records from the same list", {"map.pbtxt": f"item {{ name: '{DOG}' id: 1 }}"}, label_map_path="map.pbtxt"),
    case(RECORDS, "map.pbtxt:1: not a label map, items with id and name were expected", {"map.pbtxt": "}"}, label_map_path="map.pbtxt"),
    case(RECORDS, "map.pbtxt: no such file", label_map_path="map.pbtxt"),
    case(RECORDS, "out/a.json: the COCO file of the evaluation records would have this name too", coco_path="out/a.json", eval_record_save_path="out/a.tfrecord", eval_fraction="0.5"),
    case(RECORDS, "names.csv: no such file", coco_path="out/a.json", attribution_path="names.csv"),
    case(RECORDS, "names.csv:1: no column author, license; the header has id, title", {"names.csv": "id,title\n"}, coco_path="out/a.json", attribution_path="names.csv"),
    case(RECORDS, 'hierarchy.json: "x", an object with LabelName was expected', {"hierarchy.json": '"x"'}, coco_path="out/a.json", hierarchy_path="hierarchy.json"),
    usage(RECORDS, "--hierarchy_path and --attribution_path go with --coco_path", hierarchy_path="hierarchy.json"),
    usage(RECORDS, "--class_text name needs --class_description_path", class_text="name"),
    usage(RECORDS, "argument --eval_fraction: '2' is not a fraction between 0 and 1, such as 0.1", eval_record_save_path="out/eval.tfrecord", eval_fraction="2"),
    usage(RECORDS, "argument --shard_bytes: 'much' is not a number of bytes such as 500K, 100M or 2G", shard_bytes="much"),
]  # fmt: skip


@pytest.mark.parametrize("given", CASES, ids=lambda given: f"{given.step}: {given.message}"[:90])
def test_the_message(given, script, tmp_path, monkeypatch):
    prepare(tmp_path, given)
    monkeypatch.chdir(tmp_path)
    for name, value in given.environment.items():
        monkeypatch.setenv(name, value)
    flags = ARGUMENTS[given.step] | given.flags
    words = [word for name, value in flags.items() if value is not None for word in (f"--{name}", value)]
    outcome = script(given.step, *(word for word in words if word))
    lines = (outcome.err if given.code == 2 else outcome.messages).splitlines()
    assert outcome.code == given.code
    assert lines[-1] == f"{given.step}.py: {given.message}"
    assert given.code == 2 or len(lines) == 1  # argparse shows the usage first


def prepare(folder, given):
    """Write the good files, then the faults of the case."""
    (folder / "photos").mkdir()
    Image.new("RGB", (40, 30)).save(folder / "photos/a1.jpg")
    for name, content in {**GOOD, **given.files}.items():
        path = folder / name
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)


# --- every message has a test --------------------------------------------------------------------

# Messages that need more than one wrong file or flag have tests of their own: words of the message, and the test file.
ELSEWHERE = {
    "a line of over": "files/test_whole_files.py",
    "no Dask scheduler answers there": "workers/test_cluster.py",
    "the Dask scheduler .* has": "workers/test_cluster_system.py",
    "workers were lost while they ran the same task": "workers/test_cluster.py",
    "the connection to the Dask scheduler": "workers/test_cluster.py",
    "had no usable worker": "workers/test_cluster.py",
    "worker .*: ": "workers/test_cluster.py",
    ": record .*: ": "records/test_verify.py",
    "--dask_scheduler needs Dask": "workers/test_cluster.py",
    "a worker process was killed": "test_process_killed.py",
    "files are damaged": "records/test_verify.py",
    "not a tf.train.Example": "records/test_verify.py",
    "changed while the records were made": "test_record_maker.py",
    "share the number": "records/test_coco.py",
    "the name of a file": "records/test_masks.py",
    "COCO's run-length encoding": "records/test_masks.py",
    "cannot be decoded": "records/test_report.py",
    "give the datapoints and images": "test_record_maker.py",
    "both exist; remove": "test_record_maker.py",
    "damaged zip file (.*)": "test_process_masks.py",
    "an image that fails once would be lost": "test_process_images.py",
    "set TMPDIR to a folder with more room": "test_process_metadata.py",
    "requirements-cluster.txt": "files/test_folders.py",
    "; if it was killed, remove": "files/test_folders.py",
}
CALLS = ("InputError", "ArgumentTypeError", "error", "fail")


def messages_in(path: Path) -> list[tuple[str, str]]:
    """Return the lines of a file that raise errors for users, and a pattern of each message."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [
        (f"{path.name}:{call.lineno}", pattern(call.args[0]))
        for call in calls
        if call.args and getattr(call.func, "id", getattr(call.func, "attr", "")) in CALLS
    ]


def pattern(text: ast.expr) -> str:
    """Return a pattern for the value of a string expression; its variable parts match anything."""
    if isinstance(text, ast.Constant):
        return re.escape(str(text.value))
    if isinstance(text, ast.JoinedStr):
        return "".join(map(pattern, text.values))
    return ".*"


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


@pytest.fixture(scope="module")
def messages() -> list[tuple[str, str]]:
    """Return the messages of all scripts and of common/."""
    paths = sorted([*ROOT.glob("*.py"), *ROOT.glob("common/**/*.py")])
    return [found for path in paths for found in messages_in(path)]


def test_every_message_has_a_test(messages):
    untested = [
        f"{where}: {text}"
        for where, text in messages
        if not any(re.search(text, given.message, re.DOTALL) for given in CASES)
        and not any(words in unescaped(text) for words in ELSEWHERE)
    ]
    assert len(messages) > 100
    assert not untested


def test_the_test_files_have_the_words(messages):
    texts = [unescaped(text) for _, text in messages]
    for words, test in ELSEWHERE.items():
        assert re.search(words, (ROOT / "tests" / test).read_text()), f"{test}: {words}"
        assert any(words in text for text in texts), f"no message: {words}"
