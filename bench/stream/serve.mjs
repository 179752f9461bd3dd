/** The service in this process, as service.mjs starts it:  node serve.mjs SETTINGS (JSON) */
import 'reflect-metadata';
import { join, resolve } from 'node:path';

const { build, brokers, dataDir, delivery, hosts, baseModel, task, free, group } = JSON.parse(process.argv[2]);
const from = (path) => import(join(resolve(build), 'src', path));
const { createApp } = await from('app.module.js');
const { Config } = await from('config/config.js');
const { InferenceEngine } = await from('inference/engine.js');
const { TaskService } = await from('learning/task-service.js');

const app = await createApp(
  Config.load({
    PORT: '0',
    FEWLOOP_DATA_DIR: dataDir,
    FEWLOOP_BASE_MODEL: baseModel,
    FEWLOOP_HOSTS: String(hosts),
    FEWLOOP_LOG_LEVEL: 'warn',
    KAFKA_BROKERS: brokers,
    KAFKA_GROUP_ID: group,
    KAFKA_DELIVERY: delivery,
  }),
);
await app.init();
const { classify } = InferenceEngine.prototype;
if (free) {
  // The golden texts of the zero-shot version need the real one.
  InferenceEngine.prototype.classify = async function (model, request) {
    if (request.priority !== 'bulk') return classify.call(this, model, request);
    return request.items.map(() => ({ ok: true, prediction: free, embedding: null, itemKey: '' }));
  };
}
// Where the bench ends before it could ask, the service ends too.
process.once('disconnect', () => process.exit(1));
process.once('message', async () => {
  await app.close();
  process.exit(0);
});
await app.get(TaskService).apply(JSON.stringify(task), 'bench');
process.send('ready');
