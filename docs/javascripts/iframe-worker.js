// Search for a site that was opened as a file. Browsers refuse to start a worker from a file, so the
// worker's script runs in a hidden frame instead: messages arrive there as events, and its
// `postMessage` dispatches events here. On a server nothing is replaced.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.srcdoc = `<script src="${new URL(url, location).href.replaceAll("&", "&amp;")}"></script>`;
      this.loaded = new Promise((resolve) => frame.addEventListener("load", () => {
        const inside = frame.contentWindow;
        inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
        resolve(inside);
      }));
      document.body.append(frame);
    }

    postMessage(data) {
      this.loaded.then((inside) => inside.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
