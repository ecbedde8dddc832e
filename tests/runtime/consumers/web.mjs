// Runs a file in onnxruntime-web (WebAssembly): node web.mjs FOLDER_OF_NODE_MODULES MODEL.onnx IMAGES.raw SHAPE OUTPUT.raw
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const [modules, model, images, shape, output] = process.argv.slice(2);
const ort = createRequire(`${modules}/`)("onnxruntime-web");
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(readFileSync(model), { executionProviders: ["wasm"] });
const pixels = new Float32Array(new Uint8Array(readFileSync(images)).buffer);
const found = await session.run({ images: new ort.Tensor("float32", pixels, shape.split(",").map(Number)) });
writeFileSync(output, new Uint8Array(found.output0.data.buffer));
console.log(ort.env.versions.web);
process.exit(0);
