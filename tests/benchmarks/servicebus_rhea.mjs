// One pattern of load by rhea, the AMQP library under the JavaScript SDK: node servicebus_rhea.mjs RHEA PORT PATTERN COUNT
// Says "ready" once its link has credit (or messages), begins at a line on standard input, and ends with one JSON line.
import { createRequire } from "node:module";
import { randomUUID } from "node:crypto";

const [path, port, pattern, countText] = process.argv.slice(2);
const rhea = createRequire(import.meta.url)(path);
const count = Number(countText);
const BATCH = 100; // messages
const BATCH_FORMAT = 0x80013700; // message-format of an envelope
const WINDOW = 2000; // messages granted ahead
const body = rhea.message.data_section(Buffer.alloc(1024, "x"));

const connection = rhea
  .create_container()
  .connect({ host: "127.0.0.1", port: Number(port), username: "anonymous", reconnect: false });
connection.on("disconnected", ({ error }) => fail(error ?? "cut off"));

function fail(reason) {
  console.error(reason);
  process.exit(1);
}

function go() {
  console.log("ready");
  return new Promise((resolve) => process.stdin.once("data", resolve));
}

function done(started, cpu) {
  const used = process.cpuUsage(cpu);
  console.log(JSON.stringify({ seconds: (performance.now() - started) / 1000, cpu_us: used.user + used.system }));
  process.exit(0);
}

function encoded() {
  return rhea.message.encode({ message_id: randomUUID(), body });
}

async function send(each, transfers) {
  const sender = connection.open_sender({ target: { address: "e" }, autosettle: true });
  sender.on("rejected", ({ delivery }) => fail(delivery.remote_state));
  await new Promise((resolve) => sender.once("sendable", resolve));
  await go();
  const [started, cpu] = [performance.now(), process.cpuUsage()];
  let sent = 0;
  let accepted = 0;
  const more = () => {
    while (sent < transfers && sender.sendable()) {
      each(sender);
      sent += 1;
    }
  };
  sender.on("sendable", more);
  sender.on("accepted", () => {
    accepted += 1;
    if (accepted === transfers) done(started, cpu);
  });
  more();
}

async function receive() {
  await go();
  const [started, cpu] = [performance.now(), process.cpuUsage()];
  const receiver = connection.open_receiver({ source: { address: "e" }, credit_window: 0, snd_settle_mode: 1 });
  let granted = 0;
  let received = 0;
  const grant = () => {
    const credit = Math.min(WINDOW, count - granted); // no more than are counted
    granted += credit;
    if (credit > 0) receiver.add_credit(credit);
  };
  receiver.on("message", () => {
    received += 1;
    if (received === count) done(started, cpu);
    else if (received > granted - WINDOW / 2) grant();
  });
  receiver.once("receiver_open", grant);
}

const patterns = {
  single: () => send((sender) => sender.send({ message_id: randomUUID(), body }), count),
  batch: () => {
    const envelope = rhea.message.encode({ body: rhea.message.data_sections(Array.from({ length: BATCH }, encoded)) });
    return send((sender) => sender.send(envelope, undefined, BATCH_FORMAT), count / BATCH);
  },
  take: () => receive(),
};
connection.once("connection_open", () => patterns[pattern]().catch(fail));
