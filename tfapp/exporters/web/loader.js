// Stands in for @litertjs/wasm-utils, which LiteRT.js imports: starts its WebAssembly, which lies compressed.

function run(script) {
  return new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.src = script;
    element.addEventListener("load", resolve);
    element.addEventListener("error", () => reject(new Error(`${script} cannot be loaded`)));
    document.head.append(element);
  });
}

async function binary(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} cannot be loaded: ${response.status} ${response.statusText}`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  // Some servers say that a .gz file is merely encoded, and browsers then hand out what is in it.
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes.buffer;
  const content = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(content).arrayBuffer();
}

/** Starts a build of the runtime; LiteRT.js calls this with its class and the path of a script. */
export async function createWasmLib(Library, script) {
  const [wasmBinary] = await Promise.all([binary(script.replace(/\.js$/, ".wasm.gz")), run(script)]);
  return new Library(await globalThis.ModuleFactory({ wasmBinary }));
}
