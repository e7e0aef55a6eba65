"""
Writes pillow.json: what Pillow and timm make of small images of our own, for the tests beside it.
Needs Pillow 13, numpy and timm (only its file auto_augment.py is loaded, so PyTorch is not needed):
    pip install pillow==13.0.0 numpy && pip install --no-deps timm==1.0.31 && python pillow.py
"""
import base64
import glob
import hashlib
import importlib.util
import io
import json
import os
import sysconfig

import numpy as np
import PIL
from PIL import Image

here = os.path.dirname(os.path.abspath(__file__))
file = os.path.join(sysconfig.get_paths()['purelib'], 'timm/data/auto_augment.py')
spec = importlib.util.spec_from_file_location('auto_augment', file)
aa = importlib.util.module_from_spec(spec)
spec.loader.exec_module(aa)

rng = np.random.default_rng(7)
b64 = lambda data: base64.b64encode(data).decode()


def picture(width, height, noise=40):
    """Waves, a hard edge and noise."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([128 + 100 * np.sin(x / 2 + c) * np.cos(y / 3 - c) for c in range(3)], -1)
    waves[:, width // 2 :, 0] = 255
    waves[height // 2 :, :, 2] = 0
    return Image.fromarray(np.clip(waves + rng.normal(0, noise, waves.shape), 0, 255).astype(np.uint8))


def image(im):
    return {'width': im.width, 'height': im.height, 'data': b64(im.tobytes())}


out = {'pillow': PIL.__version__}

# PIL.Image.resize. The last two are tall: Pillow 13 takes their columns first.
source, tall = picture(13, 9), picture(5, 21)
out['resize'] = {'images': [image(source), image(tall)], 'cases': []}
for k, im in enumerate([source, tall]):
    for size in [(6, 4), (20, 17), (13, 5), (4, 9), (4, 3)]:
        for name, number in [('nearest', 0), ('lanczos', 1), ('bilinear', 2), ('bicubic', 3)]:
            out['resize']['cases'].append({'image': k, 'size': size, 'resampling': name, 'data': b64(im.resize(size, number).tobytes())})

# timm's operations of the increasing set.
small, large, flat = picture(9, 7), picture(22, 18, 10), Image.new('RGB', (4, 3), (7, 200, 90))
low = Image.fromarray((np.asarray(large) // 3 + 40).astype(np.uint8))
out['ops'] = {'images': [image(small), image(low), image(flat)], 'fill': [124, 116, 104], 'cases': []}
for name in aa._RAND_INCREASING_TRANSFORMS:
    level_of = aa.LEVEL_TO_ARG[name]
    which = [low, flat] if name in ('AutoContrast', 'Equalize') else [small]
    for level in [0, 4.2, 9, 10] if level_of else [None]:
        for sign in (1, -1):
            aa.random.random = lambda: 0.9 if sign == -1 else 0.1
            args = level_of(level, {'translate_const': 100}) if level_of else ()
            if sign == -1 and (not args or args == previous):
                continue
            previous = args
            for resampling in ('bilinear', 'bicubic') if name in ('Rotate', 'ShearX', 'ShearY', 'TranslateXRel', 'TranslateYRel') else (None,):
                if resampling and level not in (4.2, 10):
                    continue
                for im in which if level in (None, 4.2, 10) else [None]:
                    if im is None:  # The argument alone.
                        out['ops']['cases'].append({'op': name, 'level': level, 'sign': sign, 'argument': args[0]})
                        continue
                    # Pillow 13 refuses to keep 0 bits; until 12 that was black.
                    if name == 'PosterizeIncreasing' and args[0] == 0:
                        continue
                    result = aa.NAME_TO_OP[name](im, *args, fillcolor=(124, 116, 104), resample={None: 2, 'bilinear': 2, 'bicubic': 3}[resampling])
                    out['ops']['cases'].append({'op': name, 'image': [small, low, flat].index(im), 'level': level, 'sign': sign, 'argument': args[0] if args else None, 'resampling': resampling, 'data': b64(result.tobytes())})

# Image files: what Image.open(...).convert('RGB') makes of them.
out['files'] = []


def saved(name, im, format, **options):
    buffer = io.BytesIO()
    im.save(buffer, format, **options)
    buffer.seek(0)
    out['files'].append({'name': name, 'file': b64(buffer.getvalue()), **image(Image.open(buffer).convert('RGB'))})


photo = picture(16, 11)
saved('JPEG, 4:2:0', photo, 'JPEG', quality=90)
saved('JPEG, progressive', photo, 'JPEG', quality=80, progressive=True)
saved('JPEG, gray', photo.convert('L'), 'JPEG')
cmyk = Image.fromarray(np.dstack([np.asarray(photo), np.asarray(picture(16, 11))[:, :, 0] // 2]), 'CMYK')
saved('JPEG, CMYK', cmyk, 'JPEG', quality=95)
saved('TIFF, CMYK', cmyk, 'TIFF', compression='tiff_lzw')
exif = Image.Exif()
exif[0x0112] = 6
saved('JPEG, EXIF orientation 6', photo, 'JPEG', exif=exif)
saved('PNG, alpha', Image.fromarray(np.dstack([np.asarray(photo), rng.integers(0, 256, (11, 16), dtype=np.uint8)]), 'RGBA'), 'PNG')
saved('PNG, gray and alpha', photo.convert('LA'), 'PNG')
saved('PNG, palette with a transparent colour', photo.quantize(16), 'PNG', transparency=2)
saved('PNG, 1 bit', photo.convert('1'), 'PNG')
saved('GIF', photo.quantize(32), 'GIF')
saved('WebP', photo, 'WEBP', quality=80)
saved('PNG, one pixel', Image.new('RGB', (1, 1), (1, 2, 3)), 'PNG')

# 16 bits: the high byte. Pillow's own answer for gray clips instead, see decode.ts.
gray16 = rng.integers(0, 65536, (5, 6), dtype=np.uint16)
buffer = io.BytesIO()
Image.fromarray(gray16).save(buffer, 'PNG')
out['gray16'] = {'file': b64(buffer.getvalue()), 'width': 6, 'height': 5, 'high': b64((gray16 >> 8).astype(np.uint8).tobytes())}

# The whole way, as torchvision goes it: shorter side to 12, middle 9x9, ToTensor, Normalize.
def pipeline(im, edge, side, resample):
    w, h = im.size
    size = (edge, int(edge * h / w)) if w <= h else (int(edge * w / h), edge)
    im = im.resize(size, resample)
    left, top = int(round((im.width - side) / 2.0)), int(round((im.height - side) / 2.0))
    pixels = np.asarray(im.crop((left, top, left + side, top + side)), np.float32) / np.float32(255)
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return ((pixels - mean) / std).transpose(2, 0, 1)


wide = picture(29, 17)
high = wide.transpose(Image.Transpose.ROTATE_90)
out['pipeline'] = [{**image(im), 'values': [round(float(v), 6) for v in pipeline(im, 12, 9, 3).ravel()]} for im in (wide, high)]

# Digests of the whole ImageNet sample, where it is: every image resized to a square, and resized and cropped as torchvision does for evaluation.
sample = sorted(glob.glob(os.path.join(here, '../../../../shared/data/imagenet-sample/train/*/*.JPEG')))
out['sample'] = []
for side in (224, 384) if sample else ():
    for name, number in [('bilinear', 2), ('bicubic', 3)]:
        square, cropped = hashlib.sha256(), hashlib.sha256()
        for f in sample:
            im = Image.open(f).convert('RGB')
            square.update(im.resize((side, side), number).tobytes())
            edge = int(side / 0.875)
            w, h = im.size
            im = im.resize((edge, int(edge * h / w)) if w <= h else (int(edge * w / h), edge), number)
            left, top = int(round((im.width - side) / 2.0)), int(round((im.height - side) / 2.0))
            cropped.update(im.crop((left, top, left + side, top + side)).tobytes())
        out['sample'].append({'side': side, 'resampling': name, 'images': len(sample), 'square': square.hexdigest(), 'cropped': cropped.hexdigest()})

with open(os.path.join(here, 'pillow.json'), 'w') as f:
    json.dump(out, f, separators=(',', ':'))
    f.write('\n')
