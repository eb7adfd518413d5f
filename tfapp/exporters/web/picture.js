// Pictures as this browser decodes them: the pixels of the file, turned as it says, without a colour profile.

// A canvas of a whole photograph is more than some phones allow.
const STRIP = 256;

/**
 * Decodes a picture.
 *
 * @param {Blob} file A picture of any format that the browser knows.
 * @param {number} most The most pixels that it may have.
 * @returns {Promise<{data: Uint8Array, height: number, width: number, jpeg: boolean}>} Red, green and blue.
 */
export async function readPicture(file, most) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new Error("this is no picture that the browser can decode");
  }
  const { width, height } = bitmap;
  try {
    if (width * height > most) {
      throw new Error(`the picture has ${width} x ${height} pixels, more than ${most.toLocaleString("en")}`);
    }
    return { data: pixelsOf(bitmap), height, width, jpeg: await isJpeg(file) };
  } finally {
    bitmap.close();
  }
}

async function isJpeg(file) {
  const start = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  return start[0] === 0xff && start[1] === 0xd8;
}

function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = Math.min(STRIP, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const data = new Uint8Array(width * height * 3);
  for (let top = 0, to = 0; top < height; top += STRIP) {
    const rows = Math.min(STRIP, height - top);
    context.clearRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    const strip = context.getImageData(0, 0, width, rows).data;
    for (let from = 0; from < strip.length; from += 4) {
      data[to++] = strip[from];
      data[to++] = strip[from + 1];
      data[to++] = strip[from + 2];
    }
  }
  return data;
}
