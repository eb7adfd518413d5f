// Decoded pixels to the model's size, as the release's own decoder does it.

const { fround } = Math;

/** Python and TensorFlow round halves to the even neighbour. */
function rounded(value) {
  const low = Math.floor(value);
  const rest = value - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}

function clipped(value, least, most) {
  return Math.min(Math.max(value, least), most);
}

/** The part of an image that is used: all, or the largest one in the centre with the size's proportions. */
function usedPart(full, size, aspect) {
  if (aspect !== "crop") return { part: full, corner: [0, 0] };
  const share = [fround(full[1] / size[1]), fround(full[0] / size[0])];
  const part = size.map((side, axis) => clipped(rounded(fround(share[axis] * side)), 1, full[axis]));
  const even = part.map((side, axis) => side + ((full[axis] - side) % 2));
  return { part: even, corner: even.map((side, axis) => (full[axis] - side) / 2) };
}

function targetSize(full, size, aspect) {
  if (aspect !== "pad") return size;
  const scale = Math.min(...size.map((side, axis) => fround(side / full[axis])));
  return full.map((side, axis) => clipped(rounded(fround(fround(side) * scale)), 1, size[axis]));
}

/** A JPEG file is decoded at a fraction of its size while that is enough: blocks of pixels become one. */
function reduced(image, ratio) {
  if (ratio === 1) return image;
  const height = Math.ceil(image.height / ratio);
  const width = Math.ceil(image.width / ratio);
  const data = new Uint8ClampedArray(height * width * 3);
  for (let row = 0, to = 0; row < height; row += 1) {
    const lastRow = Math.min(image.height, (row + 1) * ratio);
    for (let column = 0; column < width; column += 1) {
      const lastColumn = Math.min(image.width, (column + 1) * ratio);
      let [red, green, blue, count] = [0, 0, 0, 0];
      for (let y = row * ratio; y < lastRow; y += 1) {
        for (let from = (y * image.width + column * ratio) * 3, x = column * ratio; x < lastColumn; x += 1, from += 3) {
          red += image.data[from];
          green += image.data[from + 1];
          blue += image.data[from + 2];
          count += 1;
        }
      }
      data[to++] = red / count;
      data[to++] = green / count;
      data[to++] = blue / count;
    }
  }
  return { data, height, width };
}

function cropped(image, part, corner) {
  if (part[0] === image.height && part[1] === image.width) return image;
  const [height, width] = part;
  const data = new image.data.constructor(height * width * 3);
  for (let row = 0; row < height; row += 1) {
    const start = ((corner[0] + row) * image.width + corner[1]) * 3;
    data.set(image.data.subarray(start, start + width * 3), row * width * 3);
  }
  return { data, height, width };
}

/** For each pixel along a side: where the pixels begin that fall together, and how much each counts. */
function areas(full, size) {
  const scale = fround(full / size);
  return Array.from({ length: size }, (_, at) => {
    const [begin, end] = [fround(at * scale), fround((at + 1) * scale)];
    const first = Math.floor(begin);
    const weights = [];
    for (let from = first; from < Math.min(Math.ceil(end), full); from += 1) {
      const least = from < begin ? begin : from;
      weights.push(fround(from < begin && from + 1 > end ? scale : Math.min(from + 1, end) - least));
    }
    return { first, weights };
  });
}

/** Averages over areas; every step is rounded to 32 bits as TensorFlow's are. */
function averaged(image, height, width) {
  const [rows, columns] = [areas(image.height, height), areas(image.width, width)];
  const between = new Float32Array(image.height * width * 3);
  for (let y = 0, to = 0; y < image.height; y += 1) {
    for (const { first, weights } of columns) {
      const from = (y * image.width + first) * 3;
      for (let channel = 0; channel < 3; channel += 1) {
        let sum = 0;
        for (let index = 0; index < weights.length; index += 1) {
          sum = fround(sum + fround(weights[index] * image.data[from + index * 3 + channel]));
        }
        between[to++] = sum;
      }
    }
  }
  const data = new Float32Array(height * width * 3);
  const line = width * 3;
  const share = fround(1 / fround(fround(image.height / height) * fround(image.width / width)));
  rows.forEach(({ first, weights }, row) => {
    for (let at = 0; at < line; at += 1) {
      let sum = 0;
      for (let index = 0; index < weights.length; index += 1) {
        sum = fround(sum + fround(weights[index] * between[(first + index) * line + at]));
      }
      data[row * line + at] = fround(sum * share);
    }
  });
  return { data, height, width };
}

/** For each pixel along a side: its two neighbours, and how much the second one counts. */
function neighbours(full, size) {
  const scale = fround(full / size);
  return Array.from({ length: size }, (_, at) => {
    const place = fround(fround(fround(at + 0.5) * scale) - 0.5);
    const low = Math.floor(place);
    return { low: Math.max(low, 0), high: Math.min(Math.ceil(place), full - 1), share: fround(place - low) };
  });
}

/** Interpolates bilinearly; every step is rounded to 32 bits as TensorFlow's are. */
function interpolated(image, height, width) {
  const [rows, columns] = [neighbours(image.height, height), neighbours(image.width, width)];
  const data = new Float32Array(height * width * 3);
  const between = (one, other, share) => fround(one + fround(fround(other - one) * share));
  let to = 0;
  for (const { low: top, high: bottom, share: down } of rows) {
    for (const { low: left, high: right, share: across } of columns) {
      for (let channel = 0; channel < 3; channel += 1) {
        const at = (y, x) => image.data[(y * image.width + x) * 3 + channel];
        const above = between(at(top, left), at(top, right), across);
        data[to++] = between(above, between(at(bottom, left), at(bottom, right), across), down);
      }
    }
  }
  return { data, height, width };
}

function resized(image, [height, width], shrinking) {
  const shrinks = (side, target) => side > fround(fround(shrinking) * target);
  if (!shrinks(image.height, height) && !shrinks(image.width, width)) return interpolated(image, height, width);
  const small = averaged(image, Math.min(image.height, height), Math.min(image.width, width));
  if (small.height === height && small.width === width) return small;
  return interpolated(small, height, width);
}

/**
 * Makes a model's pixels.
 *
 * @param {{data: Uint8Array, height: number, width: number}} image Red, green and blue of each pixel.
 * @param {object} settings `image_size`, `aspect`, `bilinear_to` and `jpeg_ratios` of the page's settings.
 * @param {boolean} jpeg Whether the image comes from a JPEG file.
 * @returns {Uint8Array} Pixels of `image_size`, red, green and blue of each.
 */
export function modelPixels(image, settings, jpeg) {
  const { image_size: size, aspect, bilinear_to: shrinking, jpeg_ratios: ratios } = settings;
  let source = image;
  if (jpeg) {
    const full = [image.height, image.width];
    const target = targetSize(full, size, aspect);
    const times = Math.min(...usedPart(full, size, aspect).part.map((side, axis) => Math.floor(side / target[axis])));
    source = reduced(image, Math.max(...ratios.filter((ratio) => ratio === 1 || ratio <= times)));
  }
  const full = [source.height, source.width];
  const { part, corner } = usedPart(full, size, aspect);
  const target = targetSize(full, size, aspect);
  const small = resized(cropped(source, part, corner), target, shrinking);
  const pixels = new Uint8Array(size[0] * size[1] * 3);
  const [top, left] = size.map((side, axis) => Math.floor((side - target[axis]) / 2));
  for (let row = 0; row < target[0]; row += 1) {
    for (let at = 0; at < target[1] * 3; at += 1) {
      pixels[((top + row) * size[1] + left) * 3 + at] = fround(small.data[row * target[1] * 3 + at] + 0.5);
    }
  }
  return pixels;
}
