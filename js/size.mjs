// What the hook weighs in a front end: bundled, minified and compressed, React left out.
import { build } from "esbuild"
import { gzipSync } from "node:zlib"

const bundle = async contents => {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: import.meta.dirname ?? process.cwd() },
    bundle: true, minify: true, format: "esm", external: ["react"], write: false,
  })
  return gzipSync(outputFiles[0].contents, { level: 9 }).length
}
console.log(JSON.stringify({
  hook: await bundle('export { useStreamingAI } from "./dist/index.js"'),
  core: await bundle('export * from "./dist/core/index.js"'),
}))
