# Refuse targets that no rule makes and suggest the closest one; Snakemake would only report a missing rule.

if call is not None and call.targets:
    targets = [each.name for each in workflow.rules if not each.has_wildcards()]
    files = [
        str(path)
        for run in experiment.runs
        for seed in experiment.seeds
        for path in (checkpoint_file(run, seed), layout.sparsity(run, seed))
    ]
    files += [str(layout.table(name, "md")) for name in TABLES]
    files += [str(layout.figure(name, "png")) for name in FIGURES]
    made = [
        target
        for target in call.targets
        if Path(target).exists()
        or any(each.is_producer(target) for each in workflow.rules)
    ]
    try:
        invocation.check_targets(call.targets, targets, files, made)
    except ConfigError as error:
        raise WorkflowError(str(error))
