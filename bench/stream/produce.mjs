/**
 * Fills a topic:  node produce.mjs BROKERS TOPIC --records 200000 [--texts FILE] [--mlserver]
 * FILE holds a text a line; without one, made-up texts of about 50 characters. With --mlserver each message is a request of
 * the V2 protocol, which is what MLServer reads.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import kafkajs from 'kafkajs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    records: { type: 'string', default: '200000' },
    texts: { type: 'string' },
    mlserver: { type: 'boolean', default: false },
  },
});
const [brokers, topic] = positionals;
const records = Number(values.records);
const MADE = '物流很快，包装完好，下次还会再来买，客服态度也不错，就是价格稍微贵了一点点，总体满意';
const texts = values.texts ? readFileSync(values.texts, 'utf8').split('\n').filter(Boolean) : null;

const kafka = new kafkajs.Kafka({ brokers: [brokers], logLevel: kafkajs.logLevel.ERROR });
const producer = kafka.producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner });
await producer.connect();
for (let from = 0; from < records; from += 1000) {
  const messages = Array.from({ length: Math.min(1000, records - from) }, (_, j) => message(from + j));
  await producer.send({ topic, messages, compression: kafkajs.CompressionTypes.GZIP });
}
await producer.disconnect();

function message(i) {
  const key = `k${i % 5000}`;
  const text = texts ? texts[i % texts.length] : `${MADE}${i}`;
  if (!values.mlserver) return { key, value: JSON.stringify({ id: `r${i}`, text, shop: i % 97 }) };
  const inputs = [{ name: 'text', shape: [1, 1], datatype: 'BYTES', parameters: { content_type: 'str' }, data: [text] }];
  return { key, value: JSON.stringify({ id: `r${i}`, inputs }), headers: { 'mlserver-model': 'bench' } };
}
