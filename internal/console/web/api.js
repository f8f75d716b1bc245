// Calls of the admin API. The browser adds the session's cookie by itself.
export class Failure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function call(method, path, body, headers = {}) {
  if (body !== undefined) headers = { ...headers, "content-type": "application/json" };
  const response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await response.text();
  if (response.status === 401 && path.startsWith("/v1/")) dispatchEvent(new Event("signed-out"));
  if (!response.ok) {
    let detail = text;
    try { const p = JSON.parse(text); detail = p.detail || p.title; } catch { /* no problem document */ }
    throw new Failure(response.status, detail || response.statusText);
  }
  return { body: text && response.headers.get("content-type")?.includes("json") ? JSON.parse(text) : null, etag: response.headers.get("etag") };
}

export const get = async (path) => (await call("GET", path)).body;
export const consumerPath = (id, ...more) => "/v1/consumers/" + [id, ...more].map(encodeURIComponent).join("/");
