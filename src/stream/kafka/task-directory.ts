/** The tasks by their input topics, as of a moment ago: which task a record is for is decided record by record. */
import { Inject, Injectable } from '@nestjs/common';
import { TaskService } from '../../learning/task-service.js';
import type { TaskDefinition } from '../../task/types.js';

/** Tasks that read one topic, by name. */
export type TopicTasks = ReadonlyMap<string, TaskDefinition>;

const NONE: TopicTasks = new Map();

@Injectable()
export class TaskDirectory {
  #topics = new Map<string, Map<string, TaskDefinition>>();
  #refreshing: Promise<void> | undefined;

  constructor(@Inject(TaskService) private readonly tasks: Pick<TaskService, 'list'>) {}

  of(topic: string): TopicTasks {
    return this.#topics.get(topic) ?? NONE;
  }

  /** Input topics, with the outputs of the tasks that read each. */
  topics(): Map<string, string[]> {
    return new Map(
      [...this.#topics].map(([topic, tasks]) => [topic, [...new Set([...tasks.values()].map((t) => t.stream.output))]]),
    );
  }

  /** Calls that come while one is under way wait for a further one: what was applied before the call is seen. */
  async refresh(): Promise<void> {
    while (this.#refreshing) await this.#refreshing.catch(() => undefined);
    this.#refreshing = this.#read().finally(() => (this.#refreshing = undefined));
    await this.#refreshing;
  }

  async #read(): Promise<void> {
    const rows = await this.tasks.list();
    const definitions = rows.map(({ definition }) => definition as TaskDefinition);
    const topics = Map.groupBy(definitions, ({ stream }) => stream.input);
    this.#topics = new Map(
      [...topics].map(([topic, tasks]) => [topic, new Map(tasks.map((definition) => [definition.name, definition]))]),
    );
  }
}
