"""Examples in the help of every command; a test parses each of them."""

EXAMPLES = {
    "demo": (("seglens demo --out demo", "train a cheat and an honest model, tell which is which"),),
    "data get": (("seglens data get oxford-pet pets/", "2 archives, checked by their hashes"),),
    "data slices": (
        ("seglens data slices Dataset004_Hippocampus/ slices/", "a set of nnU-Net, for 2-D networks"),
        ("seglens data slices scans/ slices/ --plane coronal --empty drop", "images/ and masks/ of volumes"),
    ),
    "data check": (
        ("seglens data check photos/", "what is wrong, before an hour of training"),
        ("seglens data check scans/ --layout coco --classes tumour", "one category of several"),
    ),
    "data show": (("seglens data show photos/ --out photos.png", "what the model will see"),),
    "train": (
        ("seglens train photos/ --run runs/first", "a small U-Net from scratch"),
        (
            "seglens train photos/ --model resnet-unet --encoder resnet34 --aug --epochs 30 "
            "--run runs/second",
            "a larger model, with augmentation",
        ),
        ("seglens train --run runs/second --resume", "go on after a kill, with its own settings"),
    ),
    "adopt": (
        (
            "seglens adopt best_model.pth --model unetplusplus --encoder efficientnet-b5 --image-size 640 "
            "--run runs/theirs",
            "a checkpoint of segmentation-models-pytorch",
        ),
        ("seglens adopt hf://anna/pets --run runs/theirs", "what somebody shared on Hugging Face's hub"),
    ),
    "weak": (
        (
            "seglens weak photos/ --question imagenet:pets --encoder tf_efficientnet_lite0 --encoder-weights "
            "imagenet --run runs/weak",
            "no labels at all: an ImageNet classifier is asked for pets",
        ),
        (
            "seglens weak patches/ --question labels --labels labels.csv --run runs/weak",
            "a classifier learns image-level labels first",
        ),
        ("seglens weak photos/ --run runs/weak --resume", "go on after a kill, with the same settings"),
    ),
    "evaluate": (
        ("seglens evaluate runs/first", "the test split, as the run knows it"),
        ("seglens evaluate runs/first --data other/ --split all --save-images", "other pictures, drawn too"),
        ("seglens evaluate runs/first --export geojson", "what was missed and invented, in QuPath"),
        ("seglens evaluate runs/first --json > scores.json", "for a program"),
    ),
    "predict": (
        ("seglens predict runs/first cell.png scan.tif --out masks", "pictures of any size"),
        ("seglens predict runs/first cell.png --export geojson coco", "for QuPath, FiftyOne and CVAT"),
    ),
    "export": (("seglens export runs/first --format onnx", "one file for other programs, checked"),),
    "push": (("seglens push runs/first anna/pets", "weights, record and model card; no picture"),),
    "layers": (("seglens layers runs/first", "names and roles for --layers"),),
    "explain": (
        ("seglens explain runs/first --samples 0 3 7", "three pictures of the test split"),
        ("seglens explain runs/first cell.png --target point:120,84 --out why", "why this pixel?"),
        (
            "seglens explain runs/first --methods grad-cam integrated-gradients --layers encoder_last "
            "decoder_last --num-images 8",
            "methods and layers side by side",
        ),
        ("seglens explain runs/first --target false-negative", "why did it miss this?"),
    ),
    "verify": (("seglens verify runs/first", "on pictures of the run's own data"),),
    "judge": (
        ("seglens judge runs/first --num-images 50", "do the maps say what the model uses?"),
        ("seglens judge runs/first --audit border corners", "do regions matter that should not?"),
    ),
    "app": (("seglens app runs/first --open", "click on a picture and see why"),),
    "report": (
        ("seglens report runs/first", "one HTML file with all that is there"),
        ("seglens report runs/first runs/second --out both.html", "two runs on one page"),
    ),
    "compare": (
        ("seglens compare runs/first runs/second", "what the second does better, on which pictures"),
        (
            "seglens compare runs/first runs/second --data other/ --split all --out fix",
            "evaluated again, on the same pictures",
        ),
    ),
}
"""For each command, command lines with what they are for."""
