/** The launcher that FEWLOOP_LAUNCHER asks for. */
import type { Config } from '../config/config.js';
import type { Launcher } from './launcher.js';
import { ProcessLauncher } from './process.js';

/** Throws where the cluster that is asked for cannot be known. The client library is loaded where it is wanted alone. */
export async function makeLauncher(config: Config): Promise<Launcher> {
  const { launcher, role, python, dataDir, trainerProcesses: processes } = config;
  const startsRuns = role === 'all' || role === 'trainer';
  if (launcher === 'process' || !startsRuns) return new ProcessLauncher({ python, dataDir, processes });
  const [{ Cluster }, { KubernetesLauncher }] = await Promise.all([
    import('./kubernetes-cluster.js'),
    import('./kubernetes.js'),
  ]);
  return new KubernetesLauncher(Cluster.connect(config), {
    image: config.trainerImage,
    claim: config.trainerClaim,
    dataDir,
    baseModel: config.baseModel,
    cpus: config.trainerCpus,
    memory: config.trainerMemory,
    gpus: config.trainerGpus,
    processes,
    deadlineS: config.trainerDeadlineS,
    nodes: config.trainerNodes,
  });
}
