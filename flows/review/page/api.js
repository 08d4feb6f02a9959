// What the page asks the server for. Every address here is on the server itself.

export class Problem extends Error {}

async function answer(response) {
  const told = await response.json().catch(() => ({}));
  if (!response.ok) throw new Problem(told.problem || `the desk answered ${response.status}`);
  return told;
}

async function ask(path, values = {}, signal) {
  const query = new URLSearchParams(values).toString();
  let response;
  try {
    response = await fetch(query ? `${path}?${query}` : path, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("the desk does not answer; is colorize-archive review still running?");
  }
  return answer(response);
}

export const folder = () => ask("/api/folder");
export const scans = (query, signal) => ask("/api/scans", query, signal);
export const scan = (name, version, signal) => ask("/api/scan", version ? { scan: name, version } : { scan: name }, signal);

async function tell(path, values) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(values),
    });
  } catch {
    throw new Problem("the desk does not answer; is colorize-archive review still running?");
  }
  return answer(response);
}

export const decide = (values) => tell("/api/decide", values);
export const hints = (name) => ask("/api/hints", { scan: name });
export const look = (name) => ask("/api/look", { scan: name });
export const place = (name, x, y) => ask("/api/place", { scan: name, x, y });
export const changeHint = (values) => tell("/api/hint", values);
export const order = (values) => tell("/api/order", values);
export const lightness = (name) => ask("/api/lightness", { scan: name });
export const seams = (name) => ask("/api/seams", { scan: name });
export const series = () => ask("/api/series");
export const orders = () => ask("/api/orders");
export const restore = (values) => tell("/api/restore", values);

// The stamp changes with the colours, so that a browser may keep what it has.
export function smallAddress(scan) {
  return `/small/colour?${new URLSearchParams({ scan: scan.scan, stamp: `${scan.version} ${scan.finished}` })}`;
}

export function tileAddress(scan, side, level, x, y, trial = {}) {
  const query = new URLSearchParams({ scan: scan.scan, version: scan.shown, stamp: scan.stamp, ...trial });
  return `/tile/${side}/${level}/${x}/${y}?${query}`;
}

export function doubtAddress(scan) {
  return `/doubt?${new URLSearchParams({ scan: scan.scan, version: scan.shown, stamp: scan.stamp })}`;
}
