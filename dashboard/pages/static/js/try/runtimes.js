// ONNX Runtime Web as it lies here (vendor/README): the module, its glue, and its WASM, packed.

/** @typedef {import("./files.js").WantedFile} WantedFile */

export const RUNTIMES = {
  wasm: {
    module: "../../vendor/ort.js",
    glue: "../../vendor/ort-wasm.js",
    wasm: { name: "ort-wasm.wasm.gz", bytes: 3659927, sha256: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2" },
    providers: ["wasm"],
  },
  gpu: {
    module: "../../vendor/ort-gpu.js",
    glue: "../../vendor/ort-gpu-wasm.js",
    wasm: { name: "ort-gpu.wasm.gz", bytes: 4119796, sha256: "a54c76f86b0f0d9572380cf1c6292a7b3903716ffcbcd6b0e5c7050bf430eb93" },
    providers: ["webgpu", "wasm"],
  },
};
