/**
 * A process of its own, for creating a session holds its thread and keeps its memory:
 *   node pack-graph.js GRAPH FOLDER
 * writes the graph into FOLDER as ONNX Runtime has it once it is ready to run, with its packed weights in a file beside.
 * Erasable TypeScript and type-only relative imports, as host.ts.
 */
import * as ort from 'onnxruntime-node';
import { constants, setPriority } from 'node:os';

// What is being answered comes first.
setPriority(constants.priority.PRIORITY_BELOW_NORMAL);

const [graph, folder] = process.argv.slice(2) as [string, string];

await ort.InferenceSession.create(graph, {
  executionProviders: ['cpu'],
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  optimizedModelFilePath: `${folder}/model.onnx`,
  extra: {
    session: {
      optimized_model_external_initializers_file_name: 'weights.bin',
      // Smaller ones stay in the graph: they gain nothing.
      optimized_model_external_initializers_min_size_in_bytes: '1024',
      save_external_prepacked_constant_initializers: '1',
    },
  },
  // It warns that the file is for this machine alone, which it is.
  logSeverityLevel: 3,
});
