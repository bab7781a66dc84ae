// Publish at each QoS with MQTT.js, and read it back. Prints what came. Arguments: address, device, version.
const mqtt = require("mqtt");
const [address, device, version] = process.argv.slice(2);
const found = [];
setTimeout(() => { console.error("not within 20 s", found); process.exit(1); }, 20000).unref();
const client = mqtt.connect(address, { clientId: device, protocolVersion: version === "5" ? 5 : 4, reconnectPeriod: 0 });
client.on("error", (error) => { console.error(error); process.exit(1); });
client.on("message", (_topic, payload) => {
  found.push(JSON.parse(payload).sensors.n);
  if (found.length === 15) {
    console.log(JSON.stringify(found.sort((a, b) => a - b)));
    client.end();
  }
});
client.on("connect", async () => {
  await client.subscribeAsync(`devices/${device}/+`, { qos: 2 });
  for (const qos of [0, 1, 2])
    for (let number = 0; number < 5; number++)
      await client.publishAsync(`devices/${device}/telemetry`, JSON.stringify({ sensors: { n: 10 * qos + number } }), { qos });
});
