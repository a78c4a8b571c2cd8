# What a profile asks for, checked before any work: Snakemake ignores a rule that does not exist, and notices a GPU
# partition that does not exist when its first job is submitted, after hours of others.

if workflow.is_main_process:
    every = {each.name: each for each in workflow.rules}
    chosen = {
        "set-resources": workflow.resource_settings.overwrite_resources,
        "set-threads": workflow.resource_settings.overwrite_threads,
    }
    for key, named in chosen.items():
        if unknown := named.keys() - every.keys():
            raise WorkflowError(
                f"{key}: no rule is called {', '.join(sorted(unknown))}{did_you_mean(min(unknown), every)}; "
                f"allowed: {', '.join(sorted(every))}"
            )
    if shutil.which("sbatch"):
        try:
            slurm.check(
                (
                    name,
                    {
                        key: resource.evaluate(
                            Wildcards(fromdict={"run": run}),
                            input=(),
                            attempt=1,
                            threads=1,
                            rulename=name,
                            async_run=None,
                        ).value
                        for key, resource in each.resources.items()
                        if key in slurm.RESOURCES
                    },
                )
                for name, each in every.items()
                for run in experiment.runs
            )
        except ConfigError as error:
            raise WorkflowError(str(error))
