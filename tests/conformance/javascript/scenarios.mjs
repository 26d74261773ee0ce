// The broker through the unmodified JavaScript SDK: each scenario is one test; their outcomes go to standard output.
//
// Environment: CONNECTION_STRING; PACKAGES, the folder with node_modules; NODE_EXTRA_CA_CERTS, the broker's authority.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { randomUUID } from "node:crypto";

const require = createRequire(`${process.env.PACKAGES}/package.json`);
const { ServiceBusClient, ServiceBusAdministrationClient, delay } = require("@azure/service-bus");
const WebSocket = require("ws");

const WAIT_MS = 5000; // as long as a message that is there may take to come
const QUIET_MS = 300; // as long as we wait for one that must not come
const SCENARIO_MS = 30_000;
const retryOptions = { maxRetries: 0 };
const connectionString = process.env.CONNECTION_STRING;
const client = new ServiceBusClient(connectionString, { retryOptions });
const administration = new ServiceBusAdministrationClient(connectionString);

async function queue(options = {}) {
  const name = `queue-${randomUUID()}`;
  await administration.createQueue(name, options);
  return name;
}

async function topic(...subscriptions) {
  const name = `topic-${randomUUID()}`;
  await administration.createTopic(name);
  for (const subscription of subscriptions) await administration.createSubscription(name, subscription);
  return name;
}

async function send(entity, messages, from = client) {
  const sender = from.createSender(entity);
  await sender.sendMessages(messages);
  await sender.close();
}

async function receive(receiver, count = 1) {
  const messages = [];
  while (messages.length < count) {
    const more = await receiver.receiveMessages(count - messages.length, { maxWaitTimeInMs: WAIT_MS });
    assert.notEqual(more.length, 0, `${messages.length} of ${count} messages came`);
    messages.push(...more);
  }
  return messages;
}

const bodies = (messages) => messages.map((message) => message.body);

export const scenarios = {
  async "every part of a message arrives"() {
    const name = await queue();
    const sent = {
      body: { text: "ü", list: [1, 2, 3] },
      messageId: "id",
      correlationId: "correlation",
      contentType: "application/json",
      subject: "subject",
      to: "to",
      replyTo: "back",
      replyToSessionId: "group",
      timeToLive: 3_600_000,
      applicationProperties: { text: "a", number: 7, float: 1.5, truth: true, when: new Date(1_700_000_000_000) },
    };
    await send(name, sent);
    const [message] = await receive(client.createReceiver(name, { skipConvertingDate: true }));
    for (const key of Object.keys(sent)) assert.deepEqual(message[key], sent[key], key);
    assert.equal(message.sequenceNumber.toNumber(), 1);
    assert.equal(message.deliveryCount, 0);
    assert.ok(message.lockedUntilUtc > new Date());
    assert.match(message.lockToken, /^[0-9a-f-]{36}$/);
  },

  async "bodies keep their amqp type"() {
    const name = await queue();
    const messages = [
      { body: Buffer.from([0, 255]), bodyType: "data" },
      { body: { a: 1 }, bodyType: "value" },
      { body: [1, "two"], bodyType: "sequence" },
    ];
    await send(name, messages);
    const received = await receive(client.createReceiver(name), messages.length);
    const raw = received.map((message) => message._rawAmqpMessage);
    assert.deepEqual(raw.map((message) => message.bodyType), ["data", "value", "sequence"]);
    assert.deepEqual(bodies(received).slice(1), [{ a: 1 }, [1, "two"]]);
    assert.deepEqual([...received[0].body], [0, 255]);
  },

  async "a batch arrives whole and in order"() {
    const name = await queue();
    const sender = client.createSender(name);
    const batch = await sender.createMessageBatch();
    for (let number = 0; number < 100; number++) assert.ok(batch.tryAddMessage({ body: number }));
    assert.ok(batch.maxSizeInBytes <= 262_144);
    await sender.sendMessages(batch);
    const received = await receive(client.createReceiver(name), 100);
    assert.deepEqual(bodies(received), [...Array(100).keys()]);
  },

  async "a message that is too large is refused"() {
    const sender = client.createSender(await queue());
    await assert.rejects(sender.sendMessages({ body: Buffer.alloc(300_000) }), { code: "MessageSizeExceeded" });
    const many = Array(6).fill({ body: Buffer.alloc(200_000) }); // a request beyond 1 MiB
    await assert.rejects(sender.scheduleMessages(many, new Date(Date.now() + 60_000)), { code: "MessageSizeExceeded" });
  },

  async "every settlement does what it says"() {
    const name = await queue();
    await send(name, [{ body: "complete" }, { body: "abandon" }, { body: "defer" }, { body: "bury" }]);
    const receiver = client.createReceiver(name);
    const [complete, abandon, defer, bury] = await receive(receiver, 4);
    await receiver.completeMessage(complete);
    await receiver.abandonMessage(abandon, { tried: "once" });
    await receiver.deferMessage(defer);
    await receiver.deadLetterMessage(bury, { deadLetterReason: "poison", deadLetterErrorDescription: "no JSON" });
    const [again] = await receive(receiver);
    assert.deepEqual([again.body, again.deliveryCount, again.applicationProperties.tried], ["abandon", 1, "once"]);
    await receiver.completeMessage(again);
    const [deferred] = await receiver.receiveDeferredMessages([defer.sequenceNumber]);
    assert.equal(deferred.body, "defer");
    await receiver.completeMessage(deferred);
    const dead = client.createReceiver(name, { subQueueType: "deadLetter" });
    const [letter] = await receive(dead);
    assert.deepEqual(
      [letter.body, letter.deadLetterReason, letter.deadLetterErrorDescription, letter.deadLetterSource],
      ["bury", "poison", "no JSON", name],
    );
    await dead.completeMessage(letter);
    assert.deepEqual(await receiver.peekMessages(10, { fromSequenceNumber: complete.sequenceNumber }), []);
  },

  async "a lock is renewed and a lost one is told"() {
    const name = await queue({ lockDuration: "PT5S" });
    await send(name, { body: "a" });
    const receiver = client.createReceiver(name, { maxAutoLockRenewalDurationInMs: 0 });
    const [message] = await receive(receiver);
    const before = message.lockedUntilUtc;
    await delay(50);
    assert.ok((await receiver.renewMessageLock(message)) > before);
    await receiver.abandonMessage(message);
    await assert.rejects(receiver.renewMessageLock(message), { code: "MessageLockLost" });
  },

  async "receive and delete leaves nothing"() {
    const name = await queue();
    await send(name, [{ body: 1 }, { body: 2 }]);
    const receiver = client.createReceiver(name, { receiveMode: "receiveAndDelete" });
    assert.deepEqual(bodies(await receive(receiver, 2)), [1, 2]);
    assert.deepEqual(await receiver.peekMessages(1), []);
  },

  async "scheduled messages come when they are due and can be cancelled"() {
    const name = await queue();
    const sender = client.createSender(name);
    const due = new Date(Date.now() + 3000); // time enough to cancel one, on a busy machine too
    const [cancelled, kept] = await sender.scheduleMessages([{ body: "no" }, { body: "yes" }], due);
    await sender.cancelScheduledMessages(cancelled);
    const receiver = client.createReceiver(name);
    const [peeked] = await receiver.peekMessages(5);
    assert.deepEqual([peeked.body, peeked.state, peeked.sequenceNumber.eq(kept)], ["yes", "scheduled", true]);
    const [message] = await receive(receiver);
    assert.equal(message.body, "yes");
    assert.ok(message.enqueuedTimeUtc >= new Date(due - 5));
  },

  async "subscribe hands over what comes and completes it"() {
    const name = await queue();
    const receiver = client.createReceiver(name);
    const seen = [];
    const errors = [];
    const subscription = receiver.subscribe(
      { processMessage: async (message) => seen.push(message.body), processError: async ({ error }) => errors.push(error) },
      { maxConcurrentCalls: 3 },
    );
    await send(name, [...Array(20).keys()].map((body) => ({ body })));
    for (const end = Date.now() + WAIT_MS; seen.length < 20 && Date.now() < end; ) await delay(20);
    await subscription.close();
    assert.deepEqual(seen.sort((a, b) => a - b), [...Array(20).keys()]);
    assert.deepEqual(errors, []);
    await delay(QUIET_MS);
    assert.equal((await administration.getQueueRuntimeProperties(name)).activeMessageCount, 0);
  },

  async "a session is accepted by name with its state and lock"() {
    const name = await queue({ requiresSession: true });
    await send(name, [{ body: 1, sessionId: "a" }, { body: 2, sessionId: "b" }, { body: 3, sessionId: "a" }]);
    const session = await client.acceptSession(name, "a");
    assert.equal(session.sessionId, "a");
    assert.ok(session.sessionLockedUntilUtc > new Date());
    assert.deepEqual(bodies(await session.peekMessages(10)), [1, 3]);
    assert.equal(await session.getSessionState(), null);
    await session.setSessionState({ step: 1 });
    assert.deepEqual(await session.getSessionState(), { step: 1 });
    const before = session.sessionLockedUntilUtc;
    await delay(50);
    assert.ok((await session.renewSessionLock()) > before);
    await assert.rejects(client.acceptSession(name, "a"), { code: "SessionCannotBeLocked" });
    const messages = await receive(session, 2);
    assert.deepEqual(bodies(messages), [1, 3]);
    for (const message of messages) await session.completeMessage(message);
    await session.close();
    await (await client.acceptSession(name, "a")).close();
  },

  async "the next session is one that has messages"() {
    const name = await queue({ requiresSession: true });
    const hasty = new ServiceBusClient(connectionString, { retryOptions: { maxRetries: 0, timeoutInMs: 1000 } });
    await assert.rejects(hasty.acceptNextSession(name), { code: "ServiceTimeout" });
    await hasty.close();
    const waiting = client.acceptNextSession(name);
    await delay(QUIET_MS);
    await send(name, { body: "late", sessionId: "s" });
    const session = await waiting;
    assert.equal(session.sessionId, "s");
    const [message] = await receive(session);
    await session.deferMessage(message);
    const [deferred] = await session.receiveDeferredMessages([message.sequenceNumber]);
    await session.completeMessage(deferred);
    await session.close();
  },

  async "a lost session lock is told"() {
    const name = await queue({ requiresSession: true, lockDuration: "PT5S" });
    await send(name, { body: 1, sessionId: "a" });
    const session = await client.acceptSession(name, "a", { maxAutoLockRenewalDurationInMs: 0 });
    const [message] = await receive(session);
    await delay(5700);
    await assert.rejects(session.completeMessage(message), { code: "SessionLockLost" });
    await session.close();
    const again = await client.acceptSession(name, "a");
    assert.equal((await receive(again))[0].deliveryCount, 1);
    await again.close();
  },

  async "the rule manager adds lists and removes rules"() {
    const name = await topic("all");
    const rules = client.createRuleManager(name, "all");
    await rules.createRule("sql", { sqlExpression: "size > 3" }, { sqlExpression: "SET grade = 'big'" });
    const correlation = { subject: "s", correlationId: "c", applicationProperties: { kind: "detect", size: 4 } };
    await rules.createRule("correlation", correlation);
    await rules.deleteRule("$Default");
    const found = {};
    for await (const rule of rules.listRules()) found[rule.name] = rule;
    assert.deepEqual(Object.keys(found).sort(), ["correlation", "sql"]);
    assert.equal(found.sql.filter.sqlExpression, "size > 3");
    assert.equal(found.sql.action.sqlExpression, "SET grade = 'big'");
    const { subject, correlationId, applicationProperties } = found.correlation.filter;
    assert.deepEqual({ subject, correlationId, applicationProperties }, correlation);
    await assert.rejects(rules.createRule("sql", { sqlExpression: "1=1" }), { code: "MessagingEntityAlreadyExists" });
    await assert.rejects(rules.deleteRule("missing"), { code: "MessagingEntityNotFound" });
    await assert.rejects(rules.createRule("bad", { sqlExpression: "size >" }));
    await send(name, [
      { body: "small", applicationProperties: { size: 1 } },
      { body: "large", applicationProperties: { size: 9 } },
    ]);
    const [message] = await receive(client.createReceiver(name, "all"));
    assert.deepEqual([message.body, message.applicationProperties.grade], ["large", "big"]);
  },

  async "the administration client makes finds changes and lists everything"() {
    const name = `queue-${randomUUID()}`;
    const made = await administration.createQueue(name, { lockDuration: "PT30S", maxDeliveryCount: 3, requiresSession: true });
    assert.deepEqual([made.name, made.lockDuration, made.maxDeliveryCount, made.requiresSession], [name, "PT30S", 3, true]);
    await assert.rejects(administration.createQueue(name), { statusCode: 409 });
    made.maxDeliveryCount = 5;
    assert.equal((await administration.updateQueue(made)).maxDeliveryCount, 5);
    assert.equal(await administration.queueExists(name), true);
    const names = [];
    for await (const found of administration.listQueues()) names.push(found.name);
    assert.ok(names.includes(name));
    await administration.deleteQueue(name);
    assert.equal(await administration.queueExists(name), false);
    await assert.rejects(administration.getQueue(name), { statusCode: 404 });

    const [from, to] = [`from-${randomUUID()}`, await queue()];
    const forwarding = await administration.createQueue(from, { forwardTo: to });
    assert.ok(forwarding.forwardTo.endsWith(to));
    await send(from, { body: "forwarded" });
    assert.equal((await receive(client.createReceiver(to)))[0].body, "forwarded");

    const images = await topic("one", "two");
    await administration.createRule(images, "one", "big", { sqlExpression: "size > 3" });
    const sqlParameters = { "@least": 5 };
    const graded = await administration.createRule(
      images, "two", "graded", { sqlExpression: "size > @least", sqlParameters }, { sqlExpression: "SET grade = 'big'" },
    );
    assert.deepEqual([graded.filter.sqlParameters, graded.action.sqlExpression], [sqlParameters, "SET grade = 'big'"]);
    const rules = [];
    for await (const rule of administration.listRules(images, "one")) rules.push(rule.name);
    assert.deepEqual(rules.sort(), ["$Default", "big"]);
    const subscriptions = [];
    for await (const found of administration.listSubscriptions(images)) subscriptions.push(found.subscriptionName);
    assert.deepEqual(subscriptions, ["one", "two"]);
    const counts = await administration.getSubscriptionRuntimeProperties(images, "one");
    assert.equal(counts.totalMessageCount, 0);
    assert.ok((await administration.getNamespaceProperties()).messagingSku);
    await administration.deleteTopic(images);
  },

  async "everything works over a websocket"() {
    const name = await queue();
    const over = new ServiceBusClient(connectionString, { retryOptions, webSocketOptions: { webSocket: WebSocket } });
    await send(name, [{ body: "small" }, { body: "x".repeat(150_000) }], over);
    const receiver = over.createReceiver(name);
    const messages = await receive(receiver, 2);
    assert.deepEqual(messages.map((message) => message.body.length), [5, 150_000]);
    for (const message of messages) await receiver.completeMessage(message);
    await over.close();
  },

  async "hundreds of receivers share one connection"() {
    const name = await queue();
    const receivers = [...Array(300).keys()].map(() => client.createReceiver(name, { receiveMode: "receiveAndDelete" }));
    const waiting = receivers.map((receiver) => receiver.receiveMessages(1, { maxWaitTimeInMs: SCENARIO_MS }));
    await send(name, [...Array(300).keys()].map((body) => ({ body })));
    const received = (await Promise.all(waiting)).flatMap(bodies);
    assert.deepEqual(received.sort((a, b) => a - b), [...Array(300).keys()]);
  },

  async "everything works over tls"() {
    const name = await queue();
    const over = new ServiceBusClient(connectionString.replace(";UseDevelopmentEmulator=true", ""), { retryOptions });
    await send(name, { body: "x".repeat(150_000) }, over);
    const receiver = over.createReceiver(name);
    const [message] = await receive(receiver);
    assert.equal(message.body.length, 150_000);
    await receiver.completeMessage(message);
    await over.close();
  },

  async "an unknown entity is refused clearly"() {
    await assert.rejects(send(`missing-${randomUUID()}`, { body: 1 }), (error) =>
      ["MessagingEntityNotFound", "UnauthorizedAccess"].includes(error.code),
    );
  },
};

async function outcome(run) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${SCENARIO_MS} ms`)), SCENARIO_MS);
  });
  try {
    await Promise.race([run(), late]);
    return null;
  } catch (error) {
    return error?.stack ?? String(error);
  } finally {
    clearTimeout(timer);
  }
}

async function report(name) {
  console.log(JSON.stringify({ name, failure: await outcome(scenarios[name]) }));
}

// All at once, for they share nothing but the broker and mostly wait; what keeps this process busy comes after them.
const busy = "hundreds of receivers share one connection";
await Promise.all(Object.keys(scenarios).filter((name) => name !== busy).map(report));
await report(busy);
await Promise.race([client.close(), delay(2000)]);
process.exit(0);
