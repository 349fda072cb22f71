// Looks at the status page of a running coordinator as people do: in light and dark, on a phone and on a desk, by keyboard.
// Prints one JSON object; leaves screenshots in a folder. Usage: node look.mjs URL JOB FOLDER CHROMIUM
import { createRequire } from "node:module";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [url, job, folder, executablePath] = process.argv.slice(2);
const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const host = new URL(url).host;
const jobPage = `/jobs/${encodeURIComponent(job)}`;
const found = { errors: [], strangers: [], axe: [], unreached: [], overflow: [], live: {}, screenshots: [] };

const browser = await chromium.launch({
  executablePath,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

async function open(path, options) {
  // axe comes into the page from outside, which the page's own policy forbids; the policy has its tests elsewhere.
  const context = await browser.newContext({ ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) found.errors.push(`${path}: ${message.text()}`); });
  page.on("pageerror", (error) => found.errors.push(`${path}: ${error}`));
  page.on("request", (request) => {
    const asked = new URL(request.url());
    if (["http:", "https:", "ws:"].includes(asked.protocol) && asked.host !== host) found.strangers.push(request.url());
  });
  await page.goto(new URL(path, url).href, { waitUntil: "load" });
  if (options.javaScriptEnabled !== false) await page.waitForSelector('#pulse[data-state="live"]');
  return { context, page };
}

async function screenshot(page, name) {
  const path = join(folder, `${name}.png`);
  await page.screenshot({ path, fullPage: true });
  found.screenshots.push(path);
}

for (const [size, width, height] of [["phone", 360, 780], ["desk", 1280, 900]]) {
  for (const colorScheme of ["light", "dark"]) {
    for (const [name, path] of [["overview", "/"], ["job", jobPage]]) {
      const { context, page } = await open(path, { viewport: { width, height }, colorScheme });
      if (name === "job") await page.waitForSelector(".uplot canvas");
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      if (wide > 0) found.overflow.push(`${name} at ${width} px is ${wide} px too wide`);
      await screenshot(page, `${name}-${size}-${colorScheme}`);
      await page.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
      const cdp = await context.newCDPSession(page);
      await cdp.send("Page.setBypassCSP", { enabled: true });
      await page.reload();
      await page.waitForSelector('#pulse[data-state="live"]');
      await page.addScriptTag({ path: axe });
      await page.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      found.axe.push(...violations.map((one) => `${name}-${size}-${colorScheme}: ${one.id}: ${one.nodes[0].html}: ${one.nodes[0].failureSummary}`));
      await context.close();
    }
  }
}

// Every control is reached by the tab key alone, and the one that has the focus is seen.
{
  const { context, page } = await open(jobPage, { viewport: { width: 1280, height: 900 } });
  const controls = await page.evaluate(() => {
    const all = [...document.querySelectorAll("a[href], button, input:not([type=hidden]), summary, [tabindex='0']")].filter((one) => one.checkVisibility());
    all.forEach((one, i) => { one.dataset.walk = i; });
    return all.map((one) => one.outerHTML.slice(0, 120));
  });
  const reached = new Set();
  for (let i = 0; i < controls.length + 5; i += 1) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => {
      const one = document.activeElement;
      const seen = one.matches(":focus-visible") && getComputedStyle(one).outlineStyle !== "none";
      return one.dataset.walk === undefined ? null : { walk: Number(one.dataset.walk), seen };
    });
    if (at?.seen) reached.add(at.walk);
  }
  // A newer part of the page may have come meanwhile, without the mark: it is asked about by what it is.
  found.unreached = controls.filter((_, i) => !reached.has(i));
  found.live.controls = controls.length;
  await page.locator("#theme").focus();
  await page.keyboard.press("Enter");
  found.live.theme = await page.evaluate(() => document.documentElement.dataset.theme);
  await context.close();
}

// The page goes on by itself: the step grows, a curve grows, and the focus stays where it was.
{
  const { context, page } = await open(jobPage, { viewport: { width: 1280, height: 900 } });
  await page.waitForSelector(".uplot canvas");
  const step = () => page.evaluate(() => Number(document.querySelector("#status .far b").textContent));
  const before = await step();
  await page.focus("#cover").catch(() => {});
  const focused = await page.evaluate(() => document.activeElement.id);
  await page.waitForFunction((old) => Number(document.querySelector("#status .far b").textContent) > old, before, { timeout: 60_000 });
  found.live.before = before;
  found.live.after = await step();
  found.live.focusStays = (await page.evaluate(() => document.activeElement.id)) === focused;
  found.live.masks = await page.evaluate(() => [...document.querySelectorAll("#masks img")].filter((one) => one.naturalWidth > 0).length);
  await context.close();
}

// Without scripts the same is there to read.
{
  const { context, page } = await open(jobPage, { javaScriptEnabled: false, viewport: { width: 1280, height: 900 } });
  found.live.drawnByServer = await page.locator("figure svg").count();
  await screenshot(page, "job-without-scripts");
  await context.close();
}

await browser.close();
console.log(JSON.stringify(found, null, 2));
