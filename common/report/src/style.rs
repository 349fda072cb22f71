//! The page's style sheet and its one line of script. Nothing is loaded from anywhere.

/// Light by default, dark where the reader's system is.
pub(crate) const CSS: &str = "
:root { color-scheme: light dark; --ink: #1c1e21; --dim: #63676e; --paper: #ffffff; --card: #f5f6f8; --grid: #dcdfe4;
  --warn: #b45309; --mask: 0.65; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e7ea; --dim: #9aa0a8; --paper: #15171a; --card: #1e2125; --grid: #383d44; --warn: #fbbf24; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1240px; padding: 24px 20px 60px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 19px; margin: 40px 0 12px; }
.dim { color: var(--dim); } .warn { color: var(--warn); } code, pre { font: 13px/1.45 ui-monospace, 'DejaVu Sans Mono', monospace; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 10px; margin: 18px 0 0; }
.facts div { background: var(--card); border-radius: 8px; padding: 10px 12px; }
.facts b { display: block; font-size: 17px; font-weight: 600; white-space: nowrap; } .facts span { color: var(--dim); font-size: 12.5px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(360px, 1fr)); gap: 14px; }
figure { margin: 0; background: var(--card); border-radius: 8px; padding: 10px 12px 6px; }
figcaption { font-weight: 600; font-size: 14px; } figcaption .dim { font-weight: 400; }
figure svg { width: 100%; height: auto; display: block; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 12.5px; padding-top: 4px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 5px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; } th { text-align: left; font-weight: 600; }
th, td { padding: 4px 16px 4px 0; border-bottom: 1px solid var(--grid); vertical-align: top; } .n { text-align: right; }
.masks { border-spacing: 6px; border-collapse: separate; } .masks th, .masks td { border: 0; padding: 0; text-align: center;
  font-size: 12.5px; font-weight: 400; }
.masks th { color: var(--dim); padding-bottom: 2px; white-space: nowrap; }
.tile { position: relative; width: 100px; height: 100px; border-radius: 4px; overflow: hidden; background-size: cover; }
.tile img { position: absolute; inset: 0; width: 100%; height: 100%; } .tile .mask { opacity: var(--mask); }
.key { max-width: 100px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; color: var(--dim); }
label { font-size: 13px; color: var(--dim); } input[type=range] { vertical-align: middle; }
pre { background: var(--card); border-radius: 8px; padding: 12px; overflow-x: auto; margin: 0; }
details > summary { cursor: pointer; color: var(--dim); margin: 6px 0; }
";

/// Sets how strongly the masks cover the images.
pub(crate) const SLIDER: &str = "document.documentElement.style.setProperty('--mask', this.value)";
