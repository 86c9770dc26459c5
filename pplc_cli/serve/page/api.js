"use strict";
// Requests to the server. A refused token asks for one; a full queue is tried again.
const TRIES = 60;
let token = sessionStorage.getItem("token") || "";
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  token = given;
  sessionStorage.setItem("token", token);
  history.replaceState(null, "", location.pathname);
}

class Failure extends Error {}

async function send(path, body) {
  for (let tries = 0; ; tries++) {
    const options = { method: body ? "POST" : "GET", headers: token ? { Authorization: `Bearer ${token}` } : {}, body };
    let response;
    try {
      response = await fetch(path, options);
    } catch {
      throw new Failure(text("offline"));
    }
    if (response.status === 401) {
      await askForToken();
    } else if (response.status === 503 && tries < TRIES) {
      await new Promise((done) => setTimeout(done, 1000 * Number(response.headers.get("Retry-After") || 1)));
    } else if (!response.ok) {
      const content = await response.json().catch(() => ({}));
      throw new Failure(content.error || `${response.status} ${response.statusText}`);
    } else {
      return response;
    }
  }
}

let asking = null; // several requests wait for one answer

function askForToken() {
  asking ??= new Promise((done) => {
    const dialog = document.getElementById("token-dialog");
    document.getElementById("token-form").onsubmit = (event) => {
      event.preventDefault();
      token = document.getElementById("token").value;
      sessionStorage.setItem("token", token);
      dialog.close();
      asking = null;
      done();
    };
    dialog.showModal();
  });
  return asking;
}

function form(item, model, more = {}) {
  const data = new FormData();
  for (const [name, value] of Object.entries({ model, ...more })) data.append(name, value);
  data.append("files", item.file, item.name);
  return data;
}
