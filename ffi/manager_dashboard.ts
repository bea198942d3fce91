/**
 * The page behind `/` of the manager: the cluster at a glance, refreshed every two seconds from `/v1/status`. One text,
 * no files, nothing from elsewhere. What servers and clients say is shown as text, never as HTML.
 *
 * @module
 */

/** The whole page. */
export const dashboardPage = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>sealfs</title>
<style>
  :root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
  body { max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
  table { border-collapse: collapse; width: 100%; margin-bottom: 2rem; }
  th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884; }
  th { font-weight: 600; opacity: .7; }
  .up, .live { color: #2a9d4a; } .down { color: #d33; } .joining, .deleting { color: #c80; }
</style>
<h1>sealfs</h1>
<p id="summary">...</p>
<h2>Servers</h2><table id="servers"></table>
<h2>Volumes</h2><table id="volumes"></table>
<h2>Clients</h2><table id="sessions"></table>
<script>
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  function size(bytes) {
    let unit = 0;
    while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit++; }
    return bytes.toFixed(unit === 0 ? 0 : 1) + " " + units[unit];
  }
  function ago(ms) { return ms === null ? "not yet heard" : (ms / 1000).toFixed(1) + " s ago"; }
  function fill(id, titles, rows) {
    const table = document.getElementById(id);
    const line = (kind, cells) => {
      const row = document.createElement("tr");
      for (const text of cells) {
        const cell = document.createElement(kind);
        cell.textContent = text;
        if (["up", "down", "joining", "live", "deleting"].includes(text)) cell.className = text;
        row.append(cell);
      }
      return row;
    };
    table.replaceChildren(line("th", titles), ...rows.map((row) => line("td", row)));
  }
  async function refresh() {
    const summary = document.getElementById("summary");
    try {
      const status = await (await fetch("/v1/status", { headers: { accept: "application/json" } })).json();
      summary.textContent = "cluster " + status.clusterId + ", map " + status.epoch + ", " + status.shards + " shards, " +
        (status.placementFrozen ? "placement frozen" : "placement follows the servers until the first volume is made");
      fill("servers", ["id", "address", "state", "shards", "used", "capacity", "requests/s", "load", "heartbeat"],
        status.servers.map((s) => [s.id, s.address, s.state, s.shards, size(s.usedBytes), size(s.capacityBytes),
          s.requestsPerSecond.toFixed(0), s.hostLoad.toFixed(2), ago(s.lastHeartbeatAgoMs)]));
      fill("volumes", ["id", "name", "state", "used", "size", "inodes", "mounts"],
        status.volumes.map((v) => [v.id, v.name, v.state, size(v.usedBytes), size(v.sizeBytes), v.inodes, v.mounts]));
      fill("sessions", ["session", "host", "pid", "mounts", "heartbeat"],
        status.sessions.map((s) => [s.session, s.host, s.pid,
          s.mounts.map((m) => m.volume + " at " + m.path).join(", "), ago(s.lastHeartbeatAgoMs)]));
    } catch (error) {
      summary.textContent = "the manager does not answer: " + error.message;
    }
  }
  refresh();
  setInterval(refresh, 2000);
</script>
</html>
`;
