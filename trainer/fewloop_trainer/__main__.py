from fewloop_trainer.cli import main

raise SystemExit(main())
