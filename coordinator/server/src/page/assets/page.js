// Puts newer parts in the place of older ones as the coordinator sends them.
"use strict";
(() => {
  // Changes only what differs, so that focus, selection, open details and scroll positions stay.
  const morph = (old, young) => {
    if (old.nodeType !== young.nodeType || old.nodeName !== young.nodeName) return old.replaceWith(young);
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== young.data) old.data = young.data;
      return undefined;
    }
    const kept = (name) => (name === "open" && old.nodeName === "DETAILS") || (name === "value" && old.nodeName === "INPUT");
    for (const { name, value } of young.attributes) {
      if (!kept(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
      if (!kept(name) && !young.hasAttribute(name)) old.removeAttribute(name);
    }
    return children(old, young);
  };
  const children = (old, young) => {
    const [before, after] = [[...old.childNodes], [...young.childNodes]];
    after.forEach((node, i) => (i < before.length ? morph(before[i], node) : old.append(node)));
    before.slice(after.length).forEach((node) => node.remove());
  };

  const part = ({ id, html }) => {
    const place = document.getElementById(id);
    if (!place) return;
    const template = document.createElement("template");
    template.innerHTML = html;
    children(place, template.content);
    cover();
  };

  // How strongly masks cover their images.
  const cover = () => {
    const slider = document.getElementById("cover");
    if (slider) document.documentElement.style.setProperty("--cover", slider.value);
  };
  document.addEventListener("input", (event) => { if (event.target.id === "cover") cover(); });

  // A button that was pressed waits for its answer.
  document.addEventListener("submit", (event) => {
    const button = event.submitter;
    if (button) setTimeout(() => { button.disabled = true; button.setAttribute("aria-busy", "true"); });
  });
  // A page that comes out of the browser's memory has buttons that were pressed.
  addEventListener("pageshow", () => {
    document.querySelectorAll("button[aria-busy]").forEach((button) => { button.disabled = false; button.removeAttribute("aria-busy"); });
  });

  const pulse = (state, text) => {
    const sign = document.getElementById("pulse");
    if (sign.dataset.state === state) return;
    sign.hidden = false;
    sign.dataset.state = state;
    sign.textContent = text;
  };

  const connect = (url) => {
    const source = new EventSource(url);
    source.addEventListener("open", () => {
      pulse("live", "Live");
      document.dispatchEvent(new Event("r2o-open"));
    });
    source.addEventListener("part", (event) => part(JSON.parse(event.data)));
    source.addEventListener("points", (event) => {
      document.dispatchEvent(new CustomEvent("r2o-points", { detail: JSON.parse(event.data) }));
    });
    source.addEventListener("error", () => {
      pulse("away", "No contact, trying again");
      // After a refusal the browser gives up by itself; we ask again, and find a sign-in page by loading anew.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => again(url), 5000);
    });
    addEventListener("pagehide", () => source.close(), { once: true });
  };
  const again = async (url) => {
    const answer = await fetch(location.href, { method: "HEAD" }).catch(() => null);
    if (answer && answer.status === 401) location.reload();
    else connect(url);
  };

  const url = document.body.dataset.live;
  if (url) connect(url);
})();
