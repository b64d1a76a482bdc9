// Ids and probabilities on their way between PNG files and arrays; which class a pixel belongs to.

// The values of a grey PNG; null where there is none.
export async function readGrey(url) {
  const response = await fetch(url);
  if (!response.ok) return null;
  return grey(await response.blob());
}

export async function grey(blob) {
  const image = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const canvas = document.createElement("canvas");
  canvas.width = image.width;
  canvas.height = image.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, image.width, image.height);
  const values = new Uint8Array(image.width * image.height);
  for (let i = 0; i < values.length; i++) values[i] = data[4 * i];
  return values;
}

// A PNG in the grey of the ids.
export function writeGrey(ids, width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < ids.length; i++) pixels[i] = (0xff000000 | (0x010101 * ids[i])) >>> 0;
  context.putImageData(image, 0, 0);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

// Each pixel to the class whose probability is furthest above its threshold (as on the server).
export function decide(maps, classIds, thresholds, present) {
  const length = maps.find(Boolean)?.length ?? 0;
  const ids = new Uint8Array(length);
  const cuts = thresholds.map((t) => 255 * t);
  for (let i = 0; i < length; i++) {
    let best = 0;
    for (let c = 0; c < maps.length; c++) {
      if (!present[c] || !maps[c]) continue;
      const margin = maps[c][i] - cuts[c];
      if (margin > best) {
        best = margin;
        ids[i] = classIds[c];
      }
    }
  }
  return ids;
}
