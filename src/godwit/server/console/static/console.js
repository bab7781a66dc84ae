// What the console does in the browser besides charts: apply pushed changes, keep ages true, hand clicks to the server.
window.godwit = (() => {
  const agoOf = (ms) => {
    const s = Math.max(0, Math.round(ms / 1000));
    if (s < 2) return "just now";
    if (s < 60) return `${s} s ago`;
    if (s < 3600) return `${Math.floor(s / 60)} min ago`;
    if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
    return `${Math.floor(s / 86400)} d ago`;
  };
  const dayTime = (at, now) => {
    const time = new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    return now - at < 72e6 ? time : `${new Date(at).toLocaleDateString([], { day: "numeric", month: "short" })} ${time}`;
  };
  let skew = 0; // server clock minus this clock, ms
  const ages = (root = document) => {
    const now = Date.now() + skew;
    for (const each of root.querySelectorAll("time[data-ms]")) {
      const at = Number(each.dataset.ms);
      const text = each.dataset.form === "clock" ? dayTime(at, now) : agoOf(now - at);
      if (each.textContent !== text) each.textContent = text;
      if (!each.title) each.title = new Date(at).toLocaleString();
    }
  };
  setInterval(ages, 1000);
  // on a narrow screen the pages are a strip that scrolls: the one that is open has to be in sight
  const arrival = new MutationObserver(() => {
    const strip = document.querySelector(".nav"), here = strip?.querySelector("[aria-current]");
    if (here) strip.scrollLeft = here.offsetLeft - (strip.clientWidth - here.offsetWidth) / 2;
    if (strip) arrival.disconnect();
  });
  arrival.observe(document, { childList: true, subtree: true });

  // {id: html}: put each into the element with that id, keeping open details open
  const apply = (changes) => {
    for (const [id, html] of Object.entries(changes)) {
      const place = document.getElementById(id);
      if (!place) continue;
      const open = [...place.querySelectorAll("details[open]")].map((d) => d.dataset.key);
      const focus = place.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
      place.innerHTML = html;
      for (const d of place.querySelectorAll("details")) if (open.includes(d.dataset.key)) d.open = true;
      if (focus) place.querySelector(`[data-focus="${CSS.escape(focus)}"]`)?.focus();
      ages(place);
    }
  };
  const show = (id, visible) => { const e = document.getElementById(id); if (e) e.hidden = !visible; };

  const sparks = {};
  const spark = (id, value, keep = 90) => {
    const values = (sparks[id] ??= []);
    values.push(...[].concat(value));
    if (values.length > keep) values.splice(0, values.length - keep);
    const svg = document.getElementById(id);
    if (!svg || values.length < 2) return;
    const top = Math.max(...values) * 1.15 || 1;
    const at = (v, i) => `${((i / (values.length - 1)) * 100).toFixed(2)},${(40 - (v / top) * 34).toFixed(2)}`;
    const line = values.map(at).join(" L");
    svg.querySelector(".line").setAttribute("d", `M${line}`);
    svg.querySelector(".area").setAttribute("d", `M0,44 L${line} L100,44 Z`);
  };

  // two curves on one scale, oldest first; the newest is at the right edge
  const rates = (id, [first, second]) => {
    const box = document.getElementById(id);
    if (!box) return;
    const top = Math.max(1, ...first, ...second) * 1.1;
    const keep = Math.max(20, first.length); // a page that was just opened is not nearly empty
    const draw = (values) => values.map((v, i) => {
      const x = 100 - ((values.length - 1 - i) / (keep - 1)) * 100;
      return `${i ? "L" : "M"}${x.toFixed(2)},${(100 - (v / top) * 96).toFixed(2)}`;
    }).join(" ");
    box.querySelector(".one").setAttribute("d", draw(first));
    box.querySelector(".two").setAttribute("d", draw(second));
    box.querySelector(".top").textContent = top < 10 ? top.toFixed(1) : Math.round(top).toLocaleString();
  };

  const toast = (text) => {
    const box = Object.assign(document.createElement("div"), { className: "toast", textContent: text });
    box.setAttribute("role", "status");
    document.querySelectorAll(".toast").forEach((each) => each.remove()); // they would lie upon one another
    (document.querySelector("dialog[open]") ?? document.body).append(box); // a dialog is above all else
    setTimeout(() => box.remove(), 4000);
  };
  // what a dialog asks for first has the keyboard; when it closes, what opened it has it again, drawn anew or not
  let opener = null;
  const sheet = (open) => {
    const box = document.getElementById("sheet");
    if (!open) { if (box.open) box.close(); return; }
    if (!box.open) {
      opener = document.activeElement?.dataset.focus ?? null;
      box.onclose = () => {
        const gone = !document.activeElement || document.activeElement === document.body;
        if (gone && opener) document.querySelector(`[data-focus="${CSS.escape(opener)}"]`)?.focus();
      };
      box.showModal();
    }
    box.scrollTop = 0;
    const wanted = ["input:not([type=hidden], [type=file]), select, textarea", "[data-copy]", "button.primary", "button"];
    for (const each of wanted) { const found = box.querySelector(each); if (found) { found.focus(); break; } }
  };
  const address = (query) => history.replaceState(history.state, "", location.pathname + (query ? `?${query}` : ""));

  const dark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  const themed = () => window.dispatchEvent(new Event("godwit:theme"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themed);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  const send = (act, arg) => window.emitEvent?.("act", { act, arg });
  document.addEventListener("click", (event) => {
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      navigator.clipboard?.writeText(copy.dataset.copy).then(() => toast("Copied"), () => toast("Copying was refused by the browser"));
      return;
    }
    if (event.target.closest("[data-theme-toggle]")) {
      const next = dark() ? "light" : "dark";
      document.documentElement.dataset.theme = next;
      try { localStorage.setItem("godwit-theme", next); } catch { /* private mode: for this page only */ }
      themed();
      return;
    }
    if (event.target.closest("[data-print]")) return window.print();
    if (event.target.closest("[data-close]") || event.target.id === "sheet") return sheet(false);
    const act = event.target.closest("button[data-act]");
    if (act) {
      if (act.dataset.sure && !window.confirm(act.dataset.sure)) return;
      send(act.dataset.act, act.dataset.arg ?? "");
      return;
    }
    const row = event.target.closest("[data-href]");
    if (row && !event.target.closest("a, button")) location.assign(row.dataset.href);
  });
  document.addEventListener("submit", (event) => {
    const { act } = event.target.dataset ?? {};
    if (!act) return;
    event.preventDefault();
    send(act, JSON.stringify(Object.fromEntries(new FormData(event.target))));
  });
  // a wish and no right: the server narrows what the person may see anyway
  document.addEventListener("change", (event) => {
    const cookie = event.target.dataset?.tenantSwitch;
    if (!cookie) return;
    const secure = location.protocol === "https:" ? "; Secure" : "", value = event.target.value;
    document.cookie = `${cookie}=${encodeURIComponent(value)}; Path=/; SameSite=Lax; Max-Age=${value ? 31536000 : 0}${secure}`;
    location.assign(location.pathname);
  });
  // a file that is chosen beside a field is what stands in it, DER as PEM
  document.addEventListener("change", async (event) => {
    const [name, file] = [event.target.dataset?.into, event.target.files?.[0]];
    if (!name || !file) return;
    const bytes = new Uint8Array(await file.slice(0, 65536).arrayBuffer());
    const text = new TextDecoder().decode(bytes);
    const base64 = () => btoa(String.fromCharCode(...bytes)).replace(/.{1,64}/g, "$&\n");
    event.target.form.elements[name].value = text.includes("-----BEGIN")
      ? text : `-----BEGIN CERTIFICATE-----\n${base64()}-----END CERTIFICATE-----\n`;
  });
  let waiting;
  document.addEventListener("input", (event) => {
    const { act } = event.target.dataset ?? {};
    if (!act || event.target.tagName === "BUTTON") return; // fields of a form are sent with it
    clearTimeout(waiting);
    const tell = () => {
      let value = event.target.value;
      if (event.target.type === "datetime-local") value = String(new Date(value).getTime() || "");
      send(act, value);
    };
    waiting = setTimeout(tell, event.target.type === "search" ? 200 : 0);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement?.tagName ?? "")) {
      const box = document.querySelector("input[type=search]");
      if (box) { event.preventDefault(); box.focus(); }
    }
  });
  const clock = (ms) => { skew = ms - Date.now(); ages(); };
  return { apply, show, spark, rates, toast, sheet, address, colour, dark, ages, clock };
})();
