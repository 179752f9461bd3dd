import { Column } from 'typeorm';

/** What is classified, as stored columns: the same in examples, stream items and candidates. */
export abstract class ItemColumns {
  /** Digest of text, textPair, choices and fields. */
  @Column('text') itemKey: string;
  @Column('text') text: string;
  @Column('text', { nullable: true }) textPair: string | null;
  @Column('jsonb', { nullable: true }) choices: string[] | null;
  @Column('jsonb', { nullable: true }) fields: Record<string, unknown> | null;
}

/** An item on its way in, with its keys. */
export interface KeyedItem {
  itemKey: string;
  splitGroup: string;
  text: string;
  textPair: string | null;
  choices: string[] | null;
  fields: Record<string, unknown> | null;
}

export type SplitValue = 'train' | 'dev' | 'test';
