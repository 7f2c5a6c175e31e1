#!/bin/sh
# Make a training set from Open Images: all seven steps, in order.
#
#   SPLIT=validation CLASSES="Cat,Dog" MAX_IMAGES=200 sh make_dataset.sh
#
# If it is interrupted, run the same command again: each step resumes. If a step fails, the run ends and names
# it. Settings, as environment variables:
#
#   RELEASE       v2 to v7                                                 (v7)
#   SPLIT         train, validation or test                                (train)
#   CLASSES       names or MIDs to train on, comma-separated               (all trainable classes)
#   MAX_IMAGES    at most this many images                                 (all)
#   MASKS         1: with the instance masks (v5 and later)                (without)
#   MAX_SIDE      longer side of the images in the records, in pixels      (256)
#   NUM_SHARDS    number of record files                                   (10)
#   DATA          folder of the release                                    (data)
#   OUT           folder of the results                                    (dataset)
#   MIRROR_URL    another mirror of the images                             (the official one)
#   PYTHON        the Python to use                                        (.venv/bin/python, else python3)
#
# Further flags for a step, as on its own command line (split at blanks):
#
#   GET_FLAGS TRANSLATE_FLAGS METADATA_FLAGS DOWNLOAD_FLAGS PROCESS_FLAGS LABEL_MAP_FLAGS RECORD_FLAGS
#
# Results, with SPLIT=validation:
#
#   dataset/classes-trainable.txt                  the classes to train on, one MID a line
#   dataset/classes-translated.json                their names
#   dataset/label_map.pbtxt                        their ids, for TensorFlow
#   dataset/validation/points.json                 boxes by image, as annotated
#   dataset/validation/images.json                 the images to download
#   dataset/validation/photos/                     the downloaded images
#   dataset/validation/resized/                    the verified, resized images
#   dataset/validation/points-resized.json         boxes of the images in resized/
#   dataset/validation/records/validation.tfrecord-00000-of-00010
set -eu
cd "$(dirname "$0")"

: "${RELEASE:=v7}" "${SPLIT:=train}" "${CLASSES:=}" "${MAX_IMAGES:=}" "${MASKS:=}" "${MAX_SIDE:=256}"
: "${NUM_SHARDS:=10}" "${DATA:=data}" "${OUT:=dataset}"
: "${MIRROR_URL:=}" "${GET_FLAGS:=}" "${TRANSLATE_FLAGS:=}" "${METADATA_FLAGS:=}" "${DOWNLOAD_FLAGS:=}"
: "${PROCESS_FLAGS:=}" "${LABEL_MAP_FLAGS:=}" "${RECORD_FLAGS:=}"
if [ -z "${PYTHON:-}" ]; then
    if [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; else PYTHON=python3; fi
fi
case $MASKS in
'' | 1) ;;
*)
    echo "make_dataset.sh: MASKS=$MASKS: 1 or nothing was expected" >&2
    exit 2
    ;;
esac
made=$OUT/$SPLIT # scratch files too, so that runs for several splits do not collide

child=
interrupted() {
    trap '' INT TERM HUP
    [ -z "$child" ] || kill "$child" 2>/dev/null || true
    wait # for the step to save its state
    rm -f "$made/.stdout"
    echo "make_dataset.sh: interrupted; run the same command again to resume" >&2
    exit 130
}
trap interrupted INT TERM HUP

step() { # step NUMBER COMMAND...: run it and keep its counts; if it fails, exit with its code
    number=$1
    shift
    echo "== step $number of 7: $*" >&2
    "$@" >"$made/.stdout" & # in the background, so that the trap runs at once
    child=$!
    if wait "$child"; then
        child=
        cat "$made/.stdout"
        counts="$counts  step $number: $(tail -n 1 "$made/.stdout")
"
    else
        code=$?
        cat "$made/.stdout"
        rm -f "$made/.stdout"
        echo "make_dataset.sh: step $number of 7 failed with exit code $code" >&2
        exit "$code"
    fi
}

counts=
descriptions=$DATA/classes/class-descriptions.csv
classes=$OUT/classes-trainable.txt
mkdir -p "$made"

set --
[ -z "$MASKS" ] || set -- --masks

# shellcheck disable=SC2086  # flags are split into words
step 1 sh get_dataset.sh --release "$RELEASE" --split "$SPLIT" --directory "$DATA" "$@" $GET_FLAGS

if [ -n "$CLASSES" ]; then
    # Step 3 writes the chosen classes, so it runs before step 2.
    set -- --classes "$CLASSES" --class_description_path "$descriptions" --trainable_classes_output_path "$classes"
else
    cp "$DATA/classes/classes-trainable.txt" "$made/classes.part"
    mv "$made/classes.part" "$classes"
    set --
fi
[ -z "$MASKS" ] || set -- "$@" --masks_input_path "$DATA/$SPLIT/masks.csv"
[ -z "$MAX_IMAGES" ] || set -- "$@" --max_images "$MAX_IMAGES"

# shellcheck disable=SC2086
step 3 "$PYTHON" process_metadata.py \
    --annotations_input_path "$DATA/$SPLIT/boxes.csv" \
    --image_index_input_path "$DATA/$SPLIT/images.csv" \
    --trainable_classes_path "$DATA/classes/classes-trainable.txt" \
    --point_output_path "$made/points.json" \
    --image_index_output_path "$made/images.json" "$@" $METADATA_FLAGS

# shellcheck disable=SC2086
step 2 "$PYTHON" translate_class_descriptions.py \
    --trainable_classes_path "$classes" \
    --class_description_path "$descriptions" \
    --trainable_translated_path "$OUT/classes-translated.json" $TRANSLATE_FLAGS

set --
[ -z "$MIRROR_URL" ] || set -- --mirror_url "$MIRROR_URL"

# shellcheck disable=SC2086
step 4 "$PYTHON" download_images.py \
    --images_path "$made/images.json" \
    --images_output_directory "$made/photos" "$@" $DOWNLOAD_FLAGS

set --
[ -z "$MASKS" ] || set -- --masks_directory "$DATA/$SPLIT/masks"

# shellcheck disable=SC2086
step 5 "$PYTHON" process_images.py \
    --image_directory "$made/photos" \
    --image_saving_directory "$made/resized" \
    --datapoints_input_path "$made/points.json" \
    --datapoints_output_path "$made/points-resized.json" \
    --max_side "$MAX_SIDE" "$@" $PROCESS_FLAGS

# shellcheck disable=SC2086
step 6 "$PYTHON" create_label_map.py \
    --trainable_classes_path "$classes" \
    --class_description_path "$descriptions" \
    --label_map_save_path "$OUT/label_map.pbtxt" $LABEL_MAP_FLAGS

# shellcheck disable=SC2086
step 7 "$PYTHON" record_maker.py \
    --points_path "$made/points-resized.json" \
    --saved_images_directory "$made/resized" \
    --trainable_classes_path "$classes" \
    --label_map_path "$OUT/label_map.pbtxt" \
    --record_save_path "$made/records/$SPLIT.tfrecord" \
    --num_shards "$NUM_SHARDS" $RECORD_FLAGS

rm -f "$made/.stdout"
printf '%s' "$counts" >&2
echo "records:   $made/records/$SPLIT.tfrecord-*"
echo "label map: $OUT/label_map.pbtxt"
