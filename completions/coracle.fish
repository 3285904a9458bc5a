# fish completion for coracle: asks `coracle complete`
function __coracle_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in (coracle complete -- $words[2..-1] 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path (commandline -ct)
            case :directories
                __fish_complete_directories (commandline -ct)
            case '*'
                echo $line
        end
    end
end
complete -c coracle -f -a '(__coracle_complete)'
