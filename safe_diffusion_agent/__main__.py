"""`python -m safe_diffusion_agent` is the `trebi` command."""

from safe_diffusion_agent.cli import main

if __name__ == "__main__":
    main()
