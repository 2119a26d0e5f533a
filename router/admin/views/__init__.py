"""The pages, a module for each subject. Each declares its views with router.admin.page.page."""
