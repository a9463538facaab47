// One script, one style sheet, one page, under fixed names: istiod-lite holds them by name, and a page that was built
// twice from the same sources is the same.
import { defineConfig } from "vite";

export default defineConfig({
  base: "/",
  // By the name of the product, not by where somebody builds it.
  cacheDir: "node_modules/.vite",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "dist",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: false,
    reportCompressedSize: false,
    rollupOptions: {
      output: { entryFileNames: "app.js", chunkFileNames: "[name].js", assetFileNames: "app[extname]" },
    },
  },
  server: { port: 5173, proxy: { "/api": process.env.AMBIT_CONSOLE ?? "http://127.0.0.1:7070" } },
});
