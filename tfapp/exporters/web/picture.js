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
  const { naturalWidth, naturalHeight } = await headerOf(file);
  if (naturalWidth * naturalHeight > most) {
    const size = `${naturalWidth} x ${naturalHeight}`;
    throw new Error(`the picture has ${size} pixels, more than ${most.toLocaleString("en")}`);
  }
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(file, options).catch(refuse);
  const { width, height } = bitmap;
  try {
    return { data: pixelsOf(bitmap), height, width, jpeg: await isJpeg(file) };
  } finally {
    bitmap.close();
  }
}

function refuse() {
  throw new Error("this is no picture that the browser can decode");
}

/** An element with the picture: it knows the size, and decodes nothing as long as it is not shown. */
async function headerOf(file) {
  const image = new Image();
  const address = URL.createObjectURL(file);
  try {
    await new Promise((resolve, reject) => {
      image.onload = resolve;
      image.onerror = reject;
      image.src = address;
    });
  } catch {
    refuse();
  } finally {
    URL.revokeObjectURL(address);
  }
  return image;
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
