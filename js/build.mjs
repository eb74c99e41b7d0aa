// Build what is committed: the package in `dist/`, the page in `../flowkit/web/page/`.
//
//     npm ci && npm run build
//
// The same bytes come out everywhere: versions are exact, and no name, path or time of this machine goes in.

import { build } from "esbuild"
import { cp, mkdir, rm, writeFile } from "node:fs/promises"
import { minify } from "terser"
import { fileURLToPath } from "node:url"
import { execFileSync } from "node:child_process"

const here = fileURLToPath(new URL(".", import.meta.url))
const [dist = "dist", page = "../flowkit/web/page"] = process.argv.slice(2)
const common = { absWorkingDir: here, bundle: true, format: "esm", target: "es2022", charset: "utf8", legalComments: "none" }

await rm(dist, { recursive: true, force: true })
await build({ ...common, entryPoints: { index: "src/index.ts" }, outdir: dist, external: ["react"], minifySyntax: true })
await build({ ...common, entryPoints: { "core/index": "src/core/index.ts" }, outdir: dist, minifySyntax: true })
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "tsconfig.types.json", "--outDir", dist], {
  cwd: here,
  stdio: "inherit",
})

await mkdir(page, { recursive: true })
const { outputFiles } = await build({
  ...common,
  entryPoints: ["src/page/main.tsx"],
  write: false,
  // Not the automatic runtime: its children are longer to write.
  jsxFactory: "h",
  jsxFragment: "Fragment",
  inject: ["src/page/h.ts"],
  // Long names that stand in no JSON of the server.
  mangleProps:
    /^(isWatching|wasRead|isMissing|lastAt|isPlaying|openLog|switchLanguage|isHolding|isChosen|isFolded|onFold|watched|newest|tStart|tEnd|tNew|tFirst|tThought|isLast|isFile|isBusy|runnable|runnables|subscribe|changed|snapshot|seconds|polite|urgent)$/,
})
// Terser's names and order compress better than esbuild's, by 600 bytes.
const { code } = await minify(outputFiles[0].text, { module: true, ecma: 2022, compress: { passes: 3 } })
await writeFile(`${page}/page.js`, code + "\n")
await build({ ...common, entryPoints: { page: "src/page/style.css" }, outdir: page, minify: true })
await cp("src/page/index.html", `${page}/index.html`)
