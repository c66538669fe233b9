select count(*) as number from range(100000000) as a, range(100000000) as b
