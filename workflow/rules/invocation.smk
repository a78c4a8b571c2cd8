# What would stop the run, before its first job.
import sys

# Snakemake would only report a missing rule
if call is not None and call.targets:
    targets = [each.name for each in workflow.rules if not each.has_wildcards()]
    files = [
        str(path)
        for run in experiment.runs
        for seed in experiment.seeds
        for path in (layout.provenance(run, None, seed), layout.sparsity(run, seed))
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

# a dry run does not call onstart, and Snakemake sets the workflow's targets only after reading the Snakefile
if call is not None and workflow.output_settings.dryrun:
    local = workflow.resource_settings.nodes is None
    if found := target_refusals(experiment, call.targets or [], local):
        print("This run would be refused:", *found, sep="\n- ", file=sys.stderr)
