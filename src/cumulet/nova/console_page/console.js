// The console's page: noVNC, on the whole window, connected with the token that is in the URL.
//
// The token is all that is taken from the URL; where to connect to is where the page came from. It leaves the
// address bar at once, so that it is in no history and on no screenshot; it is good once anyway.

const status = document.getElementById("status");
const keys = document.getElementById("keys");
const token = /token=([\w-]+)/.exec(decodeURIComponent(location.search));
history.replaceState(null, "", location.pathname);

function connect(RFB) {
  const url = new URL("websockify", location.href);
  url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  url.search = `?token=${token[1]}`;
  const rfb = new RFB(document.getElementById("screen"), url.href);
  rfb.scaleViewport = true;
  rfb.addEventListener("connect", () => {
    status.textContent = "Connected";
    keys.hidden = false;
    rfb.focus(); // what is typed goes to the server at once, not only after a click
  });
  rfb.addEventListener("desktopname", (event) => {
    document.title = status.textContent = event.detail.name;
  });
  rfb.addEventListener("disconnect", (event) => {
    keys.hidden = true;
    status.textContent = event.detail.clean
      ? "The server has closed the connection. Ask for a new URL to come back."
      : "No connection. A URL is good once and for some minutes: ask for a new one.";
  });
  keys.addEventListener("click", () => {
    rfb.sendCtrlAltDel();
    rfb.focus();
  });
}

if (!token) {
  status.textContent = "There is no token in this URL. Ask for a new one: openstack console url show SERVER";
} else {
  status.textContent = "Connecting";
  import("./novnc/core/rfb.js").then(
    (novnc) => connect(novnc.default),
    () => { status.textContent = "noVNC is not installed where nova-novncproxy runs: tools/setup fetches it"; },
  );
}
