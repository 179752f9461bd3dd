/** How far labelers agree on the questions that two of them were asked. */
import { Inject, Injectable } from '@nestjs/common';
import { AnswersRepository } from '../storage/answers.repository.js';
import { krippendorffAlpha } from './krippendorff.js';
import { sameLabels } from './answer-examples.js';

export interface Agreement {
  /** Krippendorff's; null where too little was answered twice, or always with the same label. */
  alpha: number | null;
  /** Questions that two answered. */
  questions: number;
  /** On how many of them the two differ. */
  disagreements: number;
  /** Questions that wait for a second labeler, and for a third who decides. */
  waiting: number;
  disputed: number;
}

/** The newest ones: older answers say how it was. */
const QUESTIONS = 10_000;

@Injectable()
export class AgreementService {
  constructor(@Inject(AnswersRepository) private readonly answers: AnswersRepository) {}

  async of(task: string): Promise<Agreement> {
    const { questions, waiting, disputed } = await this.answers.agreement(task, QUESTIONS);
    const disagreements = questions.filter(([first, ...others]) => others.some((one) => !sameLabels(one, first!)));
    const alpha = krippendorffAlpha(questions);
    return { alpha, questions: questions.length, disagreements: disagreements.length, waiting, disputed };
  }
}
