"use strict";
// The page of a site: search, and two pictures under one curtain. All addresses are relative to the page, so that the
// site works wherever it is put; texts come from scans and are shown as text alone.
(() => {
  const byId = id => document.getElementById(id);
  const AT_ONCE = 120;
  let site = null, shown = AT_ONCE, viewer = null, opened = "";

  // The text of a language map in a language of the reader's, else in English, else in any.
  const text = map => {
    const wanted = navigator.languages.flatMap(each => [each, each.split("-")[0]]);
    const found = [...wanted, "en", "none", ...Object.keys(map || {})].find(each => map && map[each]);
    return found ? map[found].join("\n").replace(/^<span>(.*)<\/span>$/s, (_, inner) => plain(inner)) : "";
  };
  const plain = inner => new DOMParser().parseFromString(inner, "text/html").documentElement.textContent;
  const folded = word => word.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const label = item => {
    const title = text(item.title) || item.name;
    return item.code ? `${item.code}, ${title}` : title;
  };
  const fetched = async path => {
    const answer = await fetch(path);
    if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
    return answer.json();
  };

  const search = () => {
    const words = folded(byId("words").value).split(/\s+/).filter(Boolean), folder = byId("folder").value;
    const found = site.items.filter(item =>
      (!folder || item.folder === folder || item.folder.startsWith(folder + "/")) && words.every(word => item.text.includes(word)));
    byId("count").textContent = found.length === site.items.length
      ? `${found.length} scans` : `${found.length} of ${site.items.length} scans`;
    byId("items").replaceChildren(...found.slice(0, shown).map(card));
    byId("more").hidden = found.length <= shown;
  };

  const card = item => {
    const entry = document.createElement("li"), link = document.createElement("a");
    const image = document.createElement("img"), name = document.createElement("span");
    link.href = `#${item.address}`;
    image.src = `items/${item.address}/${item.thumbnail[0]}`;
    image.loading = "lazy";
    image.alt = "";
    name.textContent = label(item);
    link.append(image, name);
    entry.append(link);
    return entry;
  };

  // The service's own address may be another one than where the page lies.
  const tiles = async (address, part) => {
    const home = `items/${address}/${part}`;
    const info = await fetched(`${home}/info.json`);
    return {...info, id: new URL(home, location.href.split("#")[0]).href};
  };

  const curtain = () => {
    if (!viewer || viewer.world.getItemCount() < 2) return;
    const upper = viewer.world.getItemAt(1), size = upper.getContentSize();
    const share = byId("curtain").value / byId("curtain").max;
    upper.setClip(new OpenSeadragon.Rect(0, 0, Math.max(1, share * size.x), size.y));
    upper.setOpacity(share > 0 ? 1 : 0);
  };

  const facts = manifest => {
    byId("summary").textContent = text(manifest.summary);
    const rows = [...(manifest.metadata || []), manifest.requiredStatement].flatMap(each => {
      const name = document.createElement("dt"), value = document.createElement("dd");
      name.textContent = text(each.label);
      value.textContent = text(each.value);
      return [name, value];
    });
    if (manifest.rights) {
      const name = document.createElement("dt"), value = document.createElement("dd"), link = document.createElement("a");
      name.textContent = "Licence";
      link.href = link.textContent = manifest.rights;
      value.append(link);
      rows.push(name, value);
    }
    byId("facts").replaceChildren(...rows);
  };

  const open = async item => {
    opened = item.address;
    byId("name").textContent = label(item);
    byId("left").textContent = text(site.words.scan);
    byId("right").textContent = text(site.words.colours);
    for (const [id, file] of [["manifest", "manifest.json"], ["record", "record.json"], ["premis", "premis.xml"]]) {
      byId(id).href = `items/${item.address}/${file}`;
    }
    if (viewer) viewer.destroy();
    byId("picture").dataset.layers = 0;
    viewer = OpenSeadragon({element: byId("picture"), showNavigationControl: false, drawer: "canvas",
                            maxZoomPixelRatio: 4, crossOriginPolicy: false});
    const [colours, scan, manifest] = await Promise.all(
      [tiles(item.address, "colours"), tiles(item.address, "scan"), fetched(`items/${item.address}/manifest.json`)]);
    if (opened !== item.address) return;
    facts(manifest);
    viewer.world.addHandler("add-item", () => {
      byId("picture").dataset.layers = viewer.world.getItemCount();
      curtain();
    });
    for (const tileSource of [colours, scan]) viewer.addTiledImage({tileSource});
  };

  const route = () => {
    const item = site.items.find(each => each.address === location.hash.slice(1));
    byId("list").hidden = Boolean(item);
    byId("viewer").hidden = !item;
    if (item) open(item).catch(fail);
    else if (viewer) { viewer.destroy(); viewer = null; opened = ""; }
  };

  const fail = error => { byId("count").textContent = `Cannot be shown: ${error.message}`; byId("list").hidden = false; };

  const begin = async () => {
    site = await fetched("search.json");
    document.title = byId("title").textContent = text(site.title);
    byId("statement").textContent = text(site.statement);
    for (const item of site.items) {
      item.text = folded([item.name, item.folder, item.code, ...Object.values(item.title).flat()].join(" "));
    }
    const folders = new Set(site.items.flatMap(item =>
      item.folder.split("/").map((_, at, parts) => parts.slice(0, at + 1).join("/"))).filter(Boolean));
    for (const folder of [...folders].sort()) byId("folder").append(new Option(folder, folder));
    byId("search").addEventListener("submit", event => event.preventDefault());
    for (const id of ["words", "folder"]) byId(id).addEventListener("input", () => { shown = AT_ONCE; search(); });
    byId("more").addEventListener("click", () => { shown += AT_ONCE; search(); });
    byId("curtain").addEventListener("input", curtain);
    byId("in").addEventListener("click", () => viewer && viewer.viewport.zoomBy(1.5));
    byId("out").addEventListener("click", () => viewer && viewer.viewport.zoomBy(1 / 1.5));
    byId("home").addEventListener("click", () => viewer && viewer.viewport.goHome());
    addEventListener("hashchange", route);
    search();
    route();
  };
  begin().catch(fail);
})();
