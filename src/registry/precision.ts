/**
 * Which precision of a version answers in this process. With `auto`: of those that it was admitted in when it was
 * trained, the fastest on this device whose golden texts hold here. One that fails them here is left, and said so; where
 * a precision was asked for, that is an error. What is fastest is measured (batch-budget.ts); until then it is what
 * usually is.
 */
import { Logger } from '@nestjs/common';
import { FewloopError } from '../common/errors.js';
import type { Config } from '../config/config.js';
import { isGpu } from '../common/devices.js';
import type { Precision } from '../task/types.js';
import { invalid, type Bundle } from './bundle.js';
import type { OpenModel } from './served-model.js';

/** Of the others each device would have to imitate: fp16 is no faster than fp32 on a CPU, int8 on a GPU. */
const USUALLY_FASTEST: Record<'cpu' | 'cuda', Precision[]> = { cpu: ['int8', 'fp32'], cuda: ['fp16', 'fp32'] };
/** By how much another must be measured faster: the two may have been measured in different weather. */
const CLEARLY = 1.2;

export interface Precisions {
  /** Opens the version's graphs in a precision; BUNDLE_INVALID where they or their golden texts fail here. */
  open(precision: Precision): Promise<OpenModel>;
  /** Tokens a second here, where that has been measured. */
  rateOf(precision: Precision): Promise<number | undefined>;
}

const log = new Logger('Precision');

/** Throws BUNDLE_INVALID where no precision that may be taken works here. */
export async function openInPrecision(
  { manifest, precisions }: Pick<Bundle, 'manifest' | 'precisions'>,
  { precision: wanted, device }: Pick<Config, 'precision' | 'device'>,
  { open, rateOf }: Precisions,
): Promise<OpenModel> {
  const version = `task ${manifest.task}: version ${manifest.version}`;
  // The base model's own graph comes in fp32 alone, and answers before anything was trained.
  if (manifest.graphs.every(({ base }) => base)) return open('fp32');
  if (wanted !== 'auto') {
    if (precisions.has(wanted)) return open(wanted);
    const reason = manifest.precisions?.find((entry) => entry.precision === wanted)?.reason;
    throw invalid(`FEWLOOP_PRECISION=${wanted}, and it has no such graphs${reason ? `: ${reason}` : ''}`);
  }
  const left = USUALLY_FASTEST[isGpu(device) ? 'cuda' : 'cpu'].filter((precision) => precisions.has(precision));
  for (;;) {
    const precision = await fastest(left, rateOf);
    try {
      const model = await open(precision);
      // Opening it may have measured it.
      if ((await fastest(left, rateOf)) === precision) {
        const roles = manifest.precisions?.find((entry) => entry.precision === precision)?.roles;
        log.log(`${version} is in ${precision}${roles?.length === 1 ? `, its ${roles[0]} alone` : ''}`);
        return model;
      }
      log.log(`${version} is not in ${precision}: measured slower here`);
      await model.release();
    } catch (error) {
      if (left.length === 1 || !(error instanceof FewloopError && error.code === 'BUNDLE_INVALID')) throw error;
      log.warn(`${version} is not in ${precision}: ${error.message}`);
      left.splice(left.indexOf(precision), 1);
    }
  }
}

/** The first, unless another has been measured clearly faster. */
async function fastest(precisions: Precision[], rateOf: Precisions['rateOf']): Promise<Precision> {
  let [best] = precisions as [Precision];
  for (const other of precisions.slice(1)) {
    const [own, rival] = [await rateOf(best), await rateOf(other)];
    if (own !== undefined && rival !== undefined && rival > CLEARLY * own) best = other;
  }
  return best;
}
