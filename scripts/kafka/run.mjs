/**
 * `npm run kafka`: a Kafka broker for trying out, on 127.0.0.1:9092 (KAFKA_PORT), its data in the data folder, until it is
 * interrupted.
 */
import { join, resolve } from 'node:path';
import { root, say } from '../prepare.mjs';
import { freePort, startBroker } from './broker.mjs';

const dir = join(resolve(root, process.env.FEWLOOP_DATA_DIR || '.fewloop'), 'kafka');
const port = Number(process.env.KAFKA_PORT || 9092);

try {
  const broker = await startBroker({ dir, port, controllerPort: await freePort() });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.once(signal, () => broker.stop());
  say(`Kafka    ${broker.brokers}`);
  say(`Use      KAFKA_BROKERS=${broker.brokers} npm start`);
  process.exitCode = await broker.ended;
} catch (error) {
  say(error.message);
  process.exitCode = 1;
}
